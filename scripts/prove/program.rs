// Searches the model in the file named first with as many sessions as named second. Prints each query's verdict
// with the trace of its attack and, as the last line, the code of all verdicts. Compiled by verifpal.ts.

use verifpal::{Verbosity, set_verbosity, verify_report_with_source_opts};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let sessions = arguments.get(2).and_then(|text| text.parse().ok());
    let (Some(file), Some(sessions)) = (arguments.get(1), sessions) else {
        eprintln!("prove MODEL SESSIONS");
        std::process::exit(1);
    };
    set_verbosity(Verbosity::Quiet);
    match verify_report_with_source_opts(file, sessions, false) {
        Ok((report, _)) => println!("{}", report.code()),
        Err(error) => {
            eprintln!("{}", error);
            std::process::exit(1);
        }
    }
}

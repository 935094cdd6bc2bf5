// The help text of every command and sub-command. `--help` and `-h` anywhere in the arguments of a command
// print its text on standard output; a mistake in the arguments prints its first line as the usage.

const CONFIG_HELP = `  --config FILE           measured configuration, else ASSAY_CONFIG
  --operator-config FILE  unmeasured one, else ASSAY_OPERATOR_CONFIG
`;

const SERVER_HELP = `  --url URL        default https://127.0.0.1:8443
  --key-file FILE  admin key; else ASSAY_API_ADMIN_KEY
  --json           the server's answer as it is
`;

interface Command {
  readonly about: string;
  readonly help: string;
  /** Sub-commands, by name. */
  readonly actions?: Readonly<Record<string, string>> | undefined;
}

function models(usage: string, about: string, more = ''): string {
  return `usage: assay models ${usage}\n\n${about}\n\n${more}${SERVER_HELP}`;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  serve: {
    about: 'start the attested server',
    help: `usage: assay serve [--config FILE] [--operator-config FILE] [--tee MODE] [--data DIR] [--model [ID=]FILE]...
                   [--files-dir DIR] [--listen HOST:PORT] [--log-level LEVEL] [--log-format FORMAT]
                   [--demo]

Starts the server and says how to talk to it. SIGTERM, SIGINT, SIGQUIT or SIGHUP drains it.

${CONFIG_HELP}  --tee MODE              auto, sev-snp, tdx, simulated, simulated-if-no-hardware or none
  --data DIR              model store, audit log and simulated hierarchy
  --model [ID=]FILE       serve this GGUF file too; may be repeated
  --files-dir DIR         serve /v1/files and /v1/batches, sealed in this folder
  --listen HOST:PORT      default 127.0.0.1:8443; port 0 takes a free one
  --log-level LEVEL       error, warn, info or debug
  --log-format FORMAT     json, text, or auto (text on a terminal)
  --demo                  the demo models; unless the configuration says otherwise, simulated where there is no
                          hardware and data in .assay

Settings: docs/configuration.md.
`,
  },
  workshop: {
    about: 'start the workshop: conversions and other jobs, with signed records',
    help: `usage: assay workshop ACTION ...      a job of a workshop that runs on this machine, and its records
       assay workshop setup [--config FILE]      make the Python environment
       assay workshop [--config FILE] [--operator-config FILE] [--tee MODE] [--data DIR] [--listen HOST:PORT]
                      [--log-level LEVEL] [--log-format FORMAT]

Starts the workshop, a program of its own beside the server: every job in a jail, every result with a signed record.

  convert FOLDER [TYPE]     safetensors to GGUF           train MODEL DATASET     a LoRA adapter
  quantize INPUT [TYPE]     GGUF to another type          cross PATH INPUT        to another format
  imatrix INPUT TEXT        importance matrix             litert INPUT            PyTorch to TFLite
  inspect | split INPUT     describe, split               paths | status          what there is
  merge FIRST               parts to one file             training | catalog      what training has, assets
  merge-lora BASE ADAPTER   adapter into its base         fetch JOB --out FOLDER  outputs and record
  publish model|gguf|dataset INPUT OWNER/NAME [--token-file FILE]
  jobs [show|wait|cancel|remove JOB]
      --set FIELD=VALUE     another field of the route    --out FOLDER            outputs, record, evidence
      --url URL             default https://127.0.0.1:8444
      --key-file FILE       API key; else ASSAY_API_API_KEY --json                  the job as JSON
      --detach              print the id of the job and leave; "jobs wait" returns to it

A command waits for its job. Ctrl-C cancels the job (exit 130); a second time leaves it running. Exit 1: refused or failed.

${CONFIG_HELP}  --tee MODE              as of assay serve
  --data DIR              folder of jobs, files, audit log and simulated hierarchy
  --listen HOST:PORT      default 127.0.0.1:8444; port 0 takes a free one
  --log-level LEVEL       error, warn, info or debug
  --log-format FORMAT     json, text, or auto (text on a terminal)

Settings: the server's and the table [workshop], see docs/workshop.md.
`,
  },
  chat: {
    about: 'talk to an attested server in this terminal',
    help: `usage: assay chat [URL] [--model ID] [--policy FILE] [--allow-simulated] [--system TEXT] [--key-file FILE]

Verifies the server before a word is sent, says the verdict in one line, then streams answers. Ctrl-C cancels the answer, twice
ends. Without a terminal on standard input, all of it is one prompt and the answer is printed.

  URL                default https://127.0.0.1:8443
  --model ID         default: the first chat model of the server
  --policy FILE      default .assay/policy.json
  --allow-simulated  accept a simulated TEE, which proves nothing about the machine
  --system TEXT      system message
  --key-file FILE    API key; else OPENAI_API_KEY
`,
  },
  models: {
    about: 'list, add, pull, load and remove the models of a running server',
    help: `usage: assay models list|ps|show|add|pull|rm|load|unload|derive

assay models list                      registered models
assay models ps                        loaded models
assay models show NAME
assay models add NAME FILE [--format safetensors|vision] [--isq TYPE]   as the server sees it, below a model root
assay models pull NAME [--force]       owner/repo:QUANT or owner/repo/file.gguf, optional @revision
assay models rm NAME
assay models load NAME [--keep-alive D]
assay models unload NAME
assay models derive FOLDER [--format vision] [--isq TYPE] [--output FILE]   no server is asked
assay models derive [FOLDER] --check MODEL|MANIFEST
${SERVER_HELP}`,
    actions: {
      list: models('list', 'Registered models.'),
      ps: models('ps', 'Loaded models.'),
      show: models('show NAME', 'Everything the server says of one model, as JSON.'),
      add: models(
        'add NAME FILE [--format FORMAT] [--isq TYPE]',
        'Registers FILE, as the server sees it, below one of its model roots: a GGUF file, or a folder that is converted.',
        '  --format FORMAT  safetensors or huggingface: FILE is a folder as a hub has it; vision: of a model that sees, or of a\n                   GGUF file and its projector\n  --isq TYPE       quantise it: Q4K, Q8_0, Q4_K_M, ...\n',
      ),
      pull: models(
        'pull NAME [--force]',
        'Fetches owner/repo:QUANT or owner/repo/file.gguf from the hub, optional @revision. A repository of safetensors is\nconverted, and quantised to QUANT.',
        '  --force          also when it is there already\n',
      ),
      rm: models('rm NAME', 'Removes a model from the server and its file from the store.'),
      load: models(
        'load NAME [--keep-alive D]',
        'Loads a model before it is asked for.',
        '  --keep-alive D   how long it stays when idle: 30s, 5m, 1h, 0 or -1\n',
      ),
      unload: models('unload NAME', 'Unloads a model once its requests have ended.'),
      derive: `usage: assay models derive FOLDER [--format vision] [--isq TYPE] [--output FILE] [--json]
       assay models derive [FOLDER] --check MODEL|MANIFEST [--json]

Makes of a folder of safetensors the GGUF file that a server makes of it, byte for byte, and prints its digests. No server is
asked; room for the file is needed where it is written, without --output in the current folder.

  --format vision  the folder is one of a model that sees: its projector is made too
  --isq TYPE       quantise it, and no projector: Q4K, Q8_0, Q4_K_M, ...
  --output FILE    keep the file, and a projector beside it as mmproj-FILE
  --check WHAT     compare with a manifest of a store, with what "assay models show" printed, or with a model of the server
                   at --url. Exit 0 equal, 1 not equal, and the reason
${SERVER_HELP}`,
    },
  },
  config: {
    about: 'check or show a configuration',
    help: `usage: assay config check|show [--config FILE] [--operator-config FILE]

  check  says whether the configuration is right; exit 2 and one line when it is not
  show   prints the effective configuration as JSON, secrets as their SHA-256, with the digest of claim 5

${CONFIG_HELP}`,
    actions: {
      check: `usage: assay config check [--config FILE] [--operator-config FILE]

Says whether the configuration is right; exit 2 and one line with key, value and reason when it is not.

${CONFIG_HELP}`,
      show: `usage: assay config show [--config FILE] [--operator-config FILE]

Prints the effective configuration as JSON, secrets as their SHA-256, with the digest of claim 5.

${CONFIG_HELP}`,
    },
  },
  'api-key': {
    about: 'make a key for a caller',
    help: `usage: assay api-key add NAME [--admin] [--json]

  add  makes a key for NAME, prints it once and the lines of the configuration that admit it
`,
    actions: {
      add: `usage: assay api-key add NAME [--admin] [--json]

Makes a key and prints it once, with the lines of the configuration that admit it: they hold its SHA-256 alone. Nothing is
written to a file.

  --admin  the key may use the admin routes
  --json   name, key and digest as JSON
`,
    },
  },
  image: {
    about: 'pack a model as a disk of the appliance',
    help: `usage: assay image model MODEL [--out DISK] [--json]

  model  packs a model as a disk of the appliance
`,
    actions: {
      model: `usage: assay image model MODEL [--out DISK] [--json]

Packs a model as a disk (EROFS and dm-verity) and prints what the measured configuration has to say of it.

  MODEL       a GGUF file (of a split model its first part), a whisper model, or a folder with a GGUF model
              and perhaps its projector
  --out DISK  default: MODEL with .img in place of .gguf or .bin
  --json      the same as JSON
`,
    },
  },
  replay: {
    about: 'run the request of a signed receipt again, and compare',
    help: `usage: assay replay RECEIPT [--request FILE] [--response FILE] [--tokens FILE] [--evidence FILE] [--policy FILE] [--json]

Computes the request again on this build with the sampling and seed of the receipt (docs/receipts.md §5), and names the first
stage that differs. No text of request or answer is printed.

  RECEIPT            an archive with receipts, {"receipt", "salt"} of GET /v1/receipts/ID
  --request FILE     the body of the request, byte for byte; default: the one in the archive
  --response FILE    the answer as it was received; default: the one in the archive
  --tokens FILE      ids of the output tokens: [[1, 15043], ...], a list for each choice; default: those in the archive
  --evidence FILE    archive that the key of the receipt must be bound by; default: RECEIPT, where it is one
  --policy FILE      what that evidence must show; default .assay/policy.json
  --allow-simulated  accept a simulated TEE, which proves nothing about the machine
  --model [ID=]FILE  a model of this GGUF file too; may be repeated
  --adapter FILE     the LoRA adapter that answered, where no store has it
  --demo             the demo models
  --data DIR         model store
  --allow WHAT       compare although build, cpu or threads is another here; may be repeated. A difference is then undecided
  --show-text        print the text of the two tokens that differ
  --json             verdict and stages as JSON
${CONFIG_HELP}
Exit 0 equal; 10 different; 12 not comparable or undecided; 30 malformed; 20 unknown version; 1 internal; 2 wrong usage.
`,
  },
  audit: {
    about: 'verify an audit log',
    help: `usage: assay audit verify [FOLDER] [--receipt-key HEX]... [--receipt FILE] [--json]

  verify  checks the hash chain of the audit log and the signed head of every run
`,
    actions: {
      verify: `usage: assay audit verify [FOLDER] [--receipt-key HEX]... [--receipt FILE] [--json]

Checks the hash chain of the audit log and the signed head of every run. Exit 0 intact, 1 not.

  FOLDER             default: the one of the configuration
  --receipt-key HEX  claim 6 of an attestation of the run; may be repeated
  --receipt FILE     also find the record that names this receipt (docs/receipts.md); exit 1 where none does
  --json             the verdict as JSON
${CONFIG_HELP}`,
    },
  },
};

const WIDTH = Math.max(...Object.keys(COMMANDS).map((name) => name.length));

const HELP = `assay: OpenAI-compatible inference that proves its software, its model and its TLS connection

${Object.entries(COMMANDS)
  .map(([name, { about }]) => `  assay ${name.padEnd(WIDTH)}  ${about}`)
  .join('\n')}

  assay COMMAND --help   its arguments; also of sub-commands: assay models pull --help
  assay --version

Settings: docs/configuration.md.
`;

/** The text for these arguments; of an unknown command undefined. */
export function helpOf(args: readonly string[]): string | undefined {
  const [name, action] = args.filter((arg) => !arg.startsWith('-'));
  if (args[0] === undefined || name === undefined) return HELP;
  if (!Object.hasOwn(COMMANDS, name)) return undefined;
  const command = COMMANDS[name];
  const actions = command?.actions ?? {};
  return action !== undefined && Object.hasOwn(actions, action) ? actions[action] : command?.help;
}

/** The first lines of the text: how the command is written. */
export function synopsisOf(...args: readonly string[]): string {
  return (helpOf(args) ?? HELP).split('\n\n')[0] ?? '';
}

/** `serve`, `chat` and so on. */
export function commandNames(): readonly string[] {
  return Object.keys(COMMANDS);
}

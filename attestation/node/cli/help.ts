// The texts of `--help`: an overview, and one for every command.

const ACCEPT = `what to accept
  --policy FILE            a policy in JSON (docs/policy.md)
  --reference-values FILE  what {"release": NAME} in the policy stands for (image/reference-values.json)
  --measurement HEX        a launch measurement to accept; may be repeated
  --model ID=SHA256        a model to accept; may be repeated
  --any-model              accept whatever models are served: which one answers is not proven
  --allow-simulated[=SHA256]
                           accept the simulated TEE, or only the one whose root has this SHA-256: proves nothing
                           about hardware, for trying things out
  Without any of these, an address of this machine is judged by .assay/policy.json of the current folder, if there
  is one; else everything is checked, shown, and refused.

where endorsements come from (the policy says which: stapled, fetch, offline)
  --cache DIR              keep what is fetched, and the highest numbers seen, against being shown older data later
  --bundle FILE            offline endorsements, as assay-verify bundle prints them
`;

const EXIT = `exit: 0 accepted, 10 refused, 20 unsupported evidence, 30 malformed input or wrong usage, 1 internal or no connection
`;

const OVERVIEW = `assay-verify: proves what answers at an https address before anything is sent to it

  assay-verify https://HOST[:PORT] [options]       verify, print what was found, exit
  assay-verify proxy https://HOST[:PORT] [options] verify, then serve plain http on loopback for any client
  assay-verify console https://HOST[:PORT] [...]   verify, then serve a page that shows the proof and talks to it
  assay-verify seal https://HOST[:PORT] [options]  verify the key of sealed bodies, print it for clients that seal
  assay-verify score https://HOST[:PORT] [options] grade it by the factors of public graders of such providers
  assay-verify evidence                            one JSON object on stdin, no network, one JSON object on stdout
  assay-verify job RECORD [--evidence FILE] [...]  the signed record of a workshop's job (docs/workshop.md), offline
  assay-verify receipt FILE [options]              the signed receipt of an answer (docs/receipts.md), offline
  assay-verify measure MANIFEST [--json|--policy]  recompute everything an image manifest states from the files beside it;
                                                   --policy prints what a policy would list to accept this release
  assay-verify policy lint FILE                    what a careful reader would ask about a policy
  assay-verify policy print FILE                   the policy with every default written out
  assay-verify bundle --cache DIR                  the endorsements kept in DIR as one file, to carry where no network is

  assay-verify COMMAND --help                      the options of one command
  assay-verify https://HOST --help                 those of verifying
  assay-verify --version

${ACCEPT}
${EXIT}`;

const VERIFY = `assay-verify https://HOST[:PORT] [options]: verifies what answers there, prints what was found, and exits

On a terminal the verdict comes first, then what failed and a summary; elsewhere every check, and the verdict last.

  --table                  every check, on a terminal as well
  --explain                in plain words, including what is not proven
  --json                   one JSON object on stdout
  --attest ID              attest one model by name instead of all that are served
  --save FILE              keep the evidence as an archive (assay/archive/v1), whatever the verdict:
                           assay-verify evidence < FILE judges it again, offline and at its own time
  --timeout SECONDS        for the connection and for the answer, each; default 30

${ACCEPT}
NO_COLOR switches colours off.

${EXIT}`;

const PROXY = `assay-verify proxy https://HOST[:PORT] [options]: verifies, then serves plain http on loopback for any client

  --listen HOST:PORT       default 127.0.0.1:8080; port 0 picks a free one
  --allow-origin URL       let web pages of this origin use the proxy (http://localhost:3000); may be repeated.
                           Without it no page may: programs send no Origin
  --allow-non-loopback     listen where other machines can connect: their prompts cross the network in the clear
  --connections N          most connections to the server; default 64
  --channel sealed         seal each request to the proven key, for networks that end TLS (docs/sealed.md): they see
                           sizes and times. A policy file must say "channel": "sealed" as well
  --same-machine           refuse later connections to another machine than the first
  --log, --no-log          one line per request on stderr: method, path, status, code, time; nothing of its content.
                           Default: when stderr is a terminal
  --receipts DIR           ask for receipts, let no answer end that they do not cover, keep each as an archive in DIR
  --with-content           keep the texts of requests and answers in these archives as well
  --with-tokens            keep the ids of output tokens of streams as well: they are content, too
  --alone                  ask that answers run alone, so that "assay replay" must find them equal; slower
  --timeout SECONDS        for a connection and for its evidence, each; default 30

${ACCEPT}
${EXIT}`;

const CONSOLE = `assay-verify console https://HOST[:PORT] [options]: verifies, then serves the console (docs/console.md) on loopback,
and prints its address. The proxy judges the connection, and the page the key that messages are sealed to.

  --check URL              compare the page that a server hands out with the one of this build, and exit: 0 the same
                           bytes, 10 others. Finds drift and no attacker, who can hand a browser something else
  --listen HOST:PORT       default a new port of 127.0.0.1 each time: what had one before may have left something there
  --connections N, --same-machine, --log, --no-log, --receipts DIR, --with-content
                           as assay-verify proxy --help says
  --timeout SECONDS        for a connection and for its evidence, each; default 30
  A policy file must say "channel": "sealed". The page is offered the policy, and asks before it uses it.

${ACCEPT}
${EXIT}`;

const SEAL = `assay-verify seal https://HOST[:PORT] [options]: judges evidence for sealed bodies (docs/sealed.md), once

  --json                   {key, key_id, receipt_key, models, issued_at, expires} on stdout, when it was accepted:
                           for clients in other languages, which seal by themselves
  --timeout SECONDS        for the connection and for the evidence, each; default 30
  A policy file must say "channel": "sealed".

${ACCEPT}
${EXIT}`;

const SCORE = `assay-verify score https://HOST[:PORT] [options]: grades a provider by the factors public graders use (docs/score.md)

Each factor is pass, fail or not applicable, with what shows it. No pass rests on what the server says of itself: each
comes of verified evidence, or of what the connections did. Two connections are attested; plain http, TLS 1.2 and an
earlier session are offered and have to be refused. No content is sent.

  --json                   one JSON object on stdout (docs/score.md)
  --timeout SECONDS        for each connection and each answer; default 30

${ACCEPT}
exit: 0 accepted by the policy, and every factor that applies passed; 10 a factor failed; 11 none failed, and no policy
      says what to accept; 20 no evidence to grade; 30 malformed input or wrong usage; 1 internal or no connection
`;

const EVIDENCE = `assay-verify evidence: judges evidence in JSON on stdin, prints the verdict in JSON on stdout

No network, no clock, no files.

SEV-SNP       tee "snp" · report · vek · chain [ASK or ASVK, ARK] · now, and: crl · roots · policy
TDX           tee "tdx" · quote · collateral · now, and: event_log · roots · policy
Clouds        tee "azure-sev-snp" and others: the same with platform, or document; see docs/formats.md
collateral    tcb_info · tcb_info_issuer_chain · qe_identity · qe_identity_issuer_chain · pck_crl · root_ca_crl, and:
              pck_chain (when the quote names its PCK without carrying it) · pck_crl_issuer_chain
an archive    what assay-verify https://HOST --save FILE wrote, and: now · policy (else its own time and policy)

report, vek, quote, event_log   base64
crl, pck_crl, root_ca_crl       base64 of DER, PEM or hex; or PEM as it is
chain, roots                    lists of certificates in PEM
chains of the collateral        PEM; tcb_info and qe_identity: the text as it was served
now                             the time to judge at, RFC 3339
roots                           replace the vendor's roots; the output says so
policy                          of evidence: keys of one vendor, not those of a policy file: docs/formats.md lists them

The output has accepted, code, claims, and checks: id, spec, title, status, detail; of a failure also code, expected,
actual, hint. Claims are there only when the evidence is authentic.

${EXIT}`;

const JOB = `assay-verify job RECORD [options]: judges the signed record of a workshop's job, offline

  --evidence FILE          the archive of evidence beside it (GET /api/jobs/ID/evidence): it must be accepted, and bind
                           the key that signed the record
  --key HEX                trust this Ed25519 key without evidence; may be repeated
  --json                   one JSON object on stdout
  --policy FILE, --reference-values FILE, --measurement HEX, --model ID=SHA256, --any-model, --allow-simulated[=SHA256]
                           what evidence to accept, as assay-verify https://HOST --help says. The workshop's code stands
                           there as the model "assay-workshop"
  The evidence is judged at the time its archive states, with the endorsements stapled to it.

exit: 0 accepted, 10 refused, 11 the signature holds but nothing shows whose it is, 20 unsupported evidence,
      30 malformed input or wrong usage
`;

const RECEIPT = `assay-verify receipt FILE [options]: judges the signed receipt of an answer, offline

FILE is an archive with receipts (proxy --receipts), {"receipt", "salt"} of GET /v1/receipts/ID, or the receipt itself

  --evidence FILE          the archive of evidence (assay-verify https://HOST --save FILE): it must be accepted, and bind
                           the key that signed. Default: the evidence of FILE, where it is an archive
  --request FILE           the body that was sent, byte for byte: it must be the one that was answered
  --response FILE          the body that was received, of a stream its events: it must be the one that was sent
  --at TIME                judge the evidence at this time; default: the time its archive states
  --json, --explain        one JSON object on stdout; plain words, with what is not proven
  --policy FILE, --reference-values FILE, --measurement HEX, --model ID=SHA256, --any-model, --allow-simulated[=SHA256]
                           what evidence to accept, as assay-verify https://HOST --help says

exit: 0 accepted, 10 refused, 11 the signature holds but nothing shows whose it is, 20 an unknown version or
      unsupported evidence, 30 malformed input or wrong usage, 1 internal
`;

const MEASURE = `assay-verify measure MANIFEST [--json|--policy]: recomputes everything an image manifest states from the files beside it

  --json                   the findings as JSON
  --policy                 what a policy would list to accept this release

exit: 0 all of it is so, 10 something is not, 30 malformed input or wrong usage
`;

const POLICY = `assay-verify policy lint FILE    what a careful reader would ask about a policy
assay-verify policy print FILE   the policy with every default written out

  --reference-values FILE  what {"release": NAME} in the policy stands for (image/reference-values.json)

exit: 0, or 30 for a policy that cannot be read; docs/policy.md has every key
`;

const POLICY_LINT = `assay-verify policy lint FILE: what a careful reader would ask about a policy, one line each

  --reference-values FILE  what {"release": NAME} in the policy stands for (image/reference-values.json)

exit: 0 whatever there is to ask, 30 for a policy that cannot be read
`;

const POLICY_PRINT = `assay-verify policy print FILE: the policy with every default written out, as JSON that is read again

  --reference-values FILE  what {"release": NAME} in the policy stands for (image/reference-values.json)

exit: 0, or 30 for a policy that cannot be read
`;

const BUNDLE = `assay-verify bundle --cache DIR: prints the endorsements kept in DIR as one file, to carry where no network is

  --cache DIR              a folder that assay-verify https://HOST --cache DIR has filled

There: assay-verify https://HOST --policy FILE --bundle FILE, with "endorsements": "offline" in the policy.

exit: 0, or 30 for wrong usage
`;

const TEXTS: Readonly<Record<string, string>> = {
  verify: VERIFY,
  proxy: PROXY,
  console: CONSOLE,
  seal: SEAL,
  score: SCORE,
  evidence: EVIDENCE,
  job: JOB,
  receipt: RECEIPT,
  measure: MEASURE,
  policy: POLICY,
  'policy lint': POLICY_LINT,
  'policy print': POLICY_PRINT,
  bundle: BUNDLE,
};

/** Words of a command line → the help that fits them best; the overview where no command is named. */
export function helpFor(words: readonly string[]): string {
  const named = words.filter((word) => !word.startsWith('-'));
  const [first = '', second = ''] = named;
  if (/^[a-z]+:\/\//i.test(first)) return VERIFY;
  return TEXTS[`${first} ${second}`] ?? TEXTS[first] ?? OVERVIEW;
}

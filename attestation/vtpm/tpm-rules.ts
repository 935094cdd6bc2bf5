// Judges a quote under an attestation key that the caller has found to be trustworthy or not: V1 to V6, V8,
// V9, K1, in the order that makes values believable before they are compared.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import { parseTpmLog, replayTpmLog, tpmEventContent } from '../eventlog/tpm.ts';
import type { Rule, Transcript } from '../transcript/checks.ts';
import type { PublicKeyInfo } from '../x509/public-key.ts';
import type { KeyCache } from '../x509/signature.ts';
import { initDataPcr8 } from './initdata.ts';
import type { DecidedVtpmPolicy } from './policy.ts';
import { digestOfPcrs, parseTpmQuote, pcrsOf, type TpmQuote, verifyQuoteSignature } from './quote.ts';
import { KATA_RULES, TPM_RULES } from './rules.ts';

/** A quote as a TPM gives it, with the values of its PCRs. */
export interface TpmEvidence {
  /** TPMS_ATTEST. */
  readonly quote: Uint8Array;
  /** Raw, or TPMT_SIGNATURE. */
  readonly signature: Uint8Array;
  /** All 24, or exactly the selected ones, ascending. */
  readonly pcrs: readonly Uint8Array[];
  /** TCG log in the crypto-agile format. */
  readonly eventLog?: Uint8Array | undefined;
}

export interface TpmFinding {
  readonly quote: TpmQuote;
  /** Values of the quoted PCRs; empty unless they are the ones signed. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
  /** The key signed the quote, and the values are the quoted ones. */
  readonly authentic: boolean;
}

export interface TpmQuestion {
  /** Undefined: there is none that anything vouches for. */
  readonly key: PublicKeyInfo | undefined;
  /** Bytes extraData must be; undefined: not asked. */
  readonly challenge: Uint8Array | undefined;
  readonly policy: Pick<DecidedVtpmPolicy, 'pcrs' | 'initData'>;
  readonly keys?: KeyCache | undefined;
}

/** @throws AttestationError malformed `tpm_magic`, `tpm_quote` or `malformed_event_log` */
export async function checkTpm(
  evidence: TpmEvidence,
  { key, challenge, policy, keys }: TpmQuestion,
  transcript: Transcript,
): Promise<TpmFinding> {
  const quote = parseTpmQuote(new Uint8Array(evidence.quote));
  const values = pcrsOf(quote, evidence.pcrs);
  const { selected, bank, clock, resetCount, restartCount, safe } = quote;
  const moment = `clock ${clock} ms, reset ${resetCount}, restart ${restartCount}${safe ? '' : ', not safe'}`;
  transcript.pass(TPM_RULES.form, `${quote.bytes.length} bytes, ${moment}`);
  const signed = key !== undefined && (await verifyQuoteSignature(quote, evidence.signature, key, keys));
  transcript.expect(
    TPM_RULES.signature,
    signed,
    key === undefined ? 'there is no attestation key to check it with' : `by ${key.kind.toUpperCase()} key`,
  );
  checkChallenge(quote, challenge, transcript);
  const digest = digestOfPcrs(values);
  const quoted = equalBytes(digest, quote.pcrDigest);
  transcript.expect(TPM_RULES.pcrDigest, quoted, `${selected.length} PCRs of the ${bank} bank`, {
    expected: toHex(quote.pcrDigest),
    actual: toHex(digest),
  });
  const pcrs = signed && quoted ? values : new Map<number, Uint8Array>();
  checkPcrs(pcrs, policy.pcrs, transcript, { missing: TPM_RULES.pcrSelected, wrong: TPM_RULES.pcrValues });
  await checkTpmLog(evidence.eventLog, quote, pcrs, transcript);
  checkInitData(pcrs, policy.initData, transcript);
  return { quote, pcrs, authentic: signed && quoted };
}

function checkChallenge(quote: TpmQuote, challenge: Uint8Array | undefined, transcript: Transcript): void {
  const { extraData } = quote;
  if (challenge === undefined) {
    transcript.skip(TPM_RULES.challenge, `no challenge is expected; extraData is ${extraData.length} bytes`);
    return;
  }
  const values = { expected: toHex(challenge), actual: toHex(extraData) };
  transcript.expect(
    TPM_RULES.challenge,
    challenge.length > 0 && equalBytes(extraData, challenge),
    `extraData is ${extraData.length === 0 ? 'empty' : toHex(extraData)}`,
    values,
  );
}

/** Every PCR asked for is there, and has one of the values accepted for it. */
export function checkPcrs(
  pcrs: ReadonlyMap<number, Uint8Array>,
  asked: DecidedVtpmPolicy['pcrs'],
  transcript: Transcript,
  rules: { readonly missing?: Rule | undefined; readonly wrong: Rule },
): void {
  if (asked === undefined) {
    if (rules.missing !== undefined) transcript.skip(rules.missing, 'the policy asks for no PCR');
    transcript.skip(rules.wrong, 'the policy asks for no PCR');
    return;
  }
  const missing = [...asked.keys()].filter((index) => !pcrs.has(index));
  if (rules.missing !== undefined) {
    const text =
      missing.length === 0 ? `PCR ${[...asked.keys()].join(', ')}` : `PCR ${missing.join(', ')} lacks`;
    transcript.expect(rules.missing, missing.length === 0, text);
  }
  const wrong = [...asked].find(([index, accepted]) => {
    const value = pcrs.get(index);
    return value === undefined || !accepted.some((each) => equalBytes(each, value));
  });
  const actual = wrong === undefined ? undefined : pcrs.get(wrong[0]);
  transcript.expect(
    rules.wrong,
    wrong === undefined,
    wrong === undefined
      ? 'as expected'
      : `PCR ${wrong[0]} is ${actual === undefined ? 'not quoted' : toHex(actual)}`,
    wrong === undefined
      ? {}
      : { expected: wrong[1].map(toHex).slice(0, 4).join(' or '), actual: actual && toHex(actual) },
  );
}

/** A log explains the PCRs it replays to; those it has no events for stay unexplained. */
async function checkTpmLog(
  log: Uint8Array | undefined,
  quote: TpmQuote,
  pcrs: ReadonlyMap<number, Uint8Array>,
  transcript: Transcript,
): Promise<void> {
  if (log === undefined) {
    for (const rule of [TPM_RULES.eventLog, TPM_RULES.eventContent])
      transcript.skip(rule, 'no event log was given');
    return;
  }
  const events = parseTpmLog(new Uint8Array(log), quote.bank);
  const replayed = await replayTpmLog(events, quote.bank);
  const wrong = [...replayed].find(
    ([index, value]) => !equalBytes(value, pcrs.get(index) ?? new Uint8Array()),
  );
  transcript.expect(
    TPM_RULES.eventLog,
    wrong === undefined && replayed.size > 0,
    wrong === undefined
      ? `PCR ${[...replayed.keys()].join(', ')} replay to the quote`
      : `PCR ${wrong[0]} does not replay to the quote`,
    wrong && { expected: toHex(pcrs.get(wrong[0]) ?? new Uint8Array()), actual: toHex(wrong[1]) },
  );
  let contradicted: number | undefined;
  for (const event of events) {
    // oxlint-disable-next-line no-await-in-loop -- stops at the first
    if ((await tpmEventContent(event, quote.bank)) !== 'contradicted') continue;
    contradicted = event.index;
    break;
  }
  transcript.expect(
    TPM_RULES.eventContent,
    contradicted === undefined,
    contradicted === undefined
      ? `${events.length} events, none says other words than were hashed`
      : `event ${contradicted}: its data is not what its digest is of`,
  );
}

function checkInitData(
  pcrs: ReadonlyMap<number, Uint8Array>,
  digest: Uint8Array | undefined,
  transcript: Transcript,
): void {
  if (digest === undefined) {
    transcript.skip(KATA_RULES.register, 'the policy expects no init data');
    return;
  }
  const expected = initDataPcr8(digest);
  const actual = pcrs.get(8) ?? new Uint8Array();
  transcript.expect(KATA_RULES.register, equalBytes(expected, actual), `PCR 8 is ${toHex(actual)}`, {
    expected: toHex(expected),
    actual: toHex(actual),
  });
}

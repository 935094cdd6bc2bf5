// Rules on Intel's documents: TCB info (T12) and the identity of the quoting enclave (T19), their windows,
// and the number both carry (T21). A document is parsed only where its signature holds; a stale one is
// refused, and still judged so that all that is wrong is listed.

import { toHex } from '../encoding/bytes.ts';
import type { Rule, Transcript } from '../transcript/checks.ts';
import { parseQeIdentity, parseTcbInfo, type QeIdentity, type TcbInfo } from './collateral.ts';
import { checkNotOlder } from './crl-rules.ts';
import { signatureText } from './form-rules.ts';
import { TDX_RULES } from './rules.ts';
import type { TdxSubject } from './subject.ts';

/**
 * T12 and T21; `signerHolds` says whether the signer's certificate may be relied on. Undefined
 * unless authentic and for TDX.
 */
export async function checkTcbInfo(
  subject: TdxSubject,
  transcript: Transcript,
  signerHolds: boolean,
): Promise<TcbInfo | undefined> {
  const { signatures, context } = subject;
  const holds = transcript.expect(
    TDX_RULES.tcbInfoSignature,
    signatures.tcbInfo,
    signatureText('TCB info', signatures.tcbInfo, 'the TCB signing key'),
  );
  if (!holds || !signerHolds) return undefined;
  const info = parseTcbInfo(subject.tcbInfo.text);
  const isForTdx = transcript.expect(
    TDX_RULES.tcbInfo,
    info.id === 'TDX' && info.version === 3 && info.tcbType === 0,
    `id ${info.id}, version ${info.version}, tcbType ${info.tcbType}`,
    { expected: 'TDX, 3, 0', actual: `${info.id}, ${info.version}, ${info.tcbType}` },
  );
  const document = { name: 'TCB info', window: TDX_RULES.tcbInfoWindow, ...info };
  const isCurrent = checkWindow(document, transcript, context.now);
  if (!isForTdx) return undefined;
  await checkNumber(subject, transcript, { ...document, isCurrent, key: `tcbInfo/${toHex(info.fmspc)}` });
  return info;
}

/** T19 and T21, as above. */
export async function checkQeIdentity(
  subject: TdxSubject,
  transcript: Transcript,
  signerHolds: boolean,
): Promise<QeIdentity | undefined> {
  const { signatures, context } = subject;
  const holds = transcript.expect(
    TDX_RULES.qeIdentitySignature,
    signatures.qeIdentity,
    signatureText('QE identity', signatures.qeIdentity, 'the TCB signing key'),
  );
  if (!holds || !signerHolds) return undefined;
  const identity = parseQeIdentity(subject.qeIdentity.text);
  const isTdQe = identity.id === 'TD_QE' && identity.version === 2;
  if (!isTdQe)
    transcript.fail(
      TDX_RULES.qeIdentity,
      `enclave identity is ${identity.id} version ${identity.version}, expected TD_QE version 2`,
    );
  const document = { name: 'QE identity', window: TDX_RULES.qeIdentityWindow, ...identity };
  const isCurrent = checkWindow(document, transcript, context.now);
  if (!isTdQe) return undefined;
  await checkNumber(subject, transcript, { ...document, isCurrent, key: 'qeIdentity' });
  return identity;
}

interface Dated {
  readonly name: string;
  /** The rule of its window. */
  readonly window: Rule;
  readonly issueDate: Date;
  readonly nextUpdate: Date;
}

function checkWindow(
  { name, window, issueDate, nextUpdate }: Dated,
  transcript: Transcript,
  now: Date,
): boolean {
  return transcript.expect(
    window,
    issueDate <= now && now < nextUpdate,
    `${name} is for ${issueDate.toISOString()} to ${nextUpdate.toISOString()}, now is ${now.toISOString()}`,
  );
}

interface Numbered {
  readonly name: string;
  readonly tcbEvaluationDataNumber: number;
  readonly isCurrent: boolean;
  /** Its name in the memory, below the root. */
  readonly key: string;
}

/**
 * T21, for each of the two documents that carry the number. Only what is current is compared
 * with memory and remembered.
 */
async function checkNumber(
  { policy, context, signatures }: TdxSubject,
  transcript: Transcript,
  { name, tcbEvaluationDataNumber: number, isCurrent, key }: Numbered,
): Promise<void> {
  const floor = policy.minimumTcbEvaluationDataNumber;
  if (floor === undefined)
    transcript.skip(TDX_RULES.evaluationNumber, `no floor in the policy; ${name} has ${number}`);
  else
    transcript.expect(
      TDX_RULES.evaluationNumber,
      number >= floor,
      `${name} has ${number}, floor is ${floor}`,
      {
        expected: `>= ${floor}`,
        actual: String(number),
      },
    );
  const { memory } = context;
  const path = `intel/${signatures.chain.rootSpki.slice(0, 16)}/${key}`;
  if (memory === undefined)
    transcript.skip(TDX_RULES.rollback, `${name}: no memory of earlier collateral was given`);
  else if (isCurrent) await checkNotOlder(transcript, memory, { key: path, name, value: BigInt(number) });
  else transcript.skip(TDX_RULES.rollback, `${name} is not current and was not compared with memory`);
}

/**
 * Intel publishes both with one number; two numbers are collateral of two publications, which no rule
 * refuses.
 */
export function noteMixedNumbers(
  transcript: Transcript,
  info: TcbInfo | undefined,
  identity: QeIdentity | undefined,
): void {
  if (info === undefined || identity === undefined) return;
  const numbers = [info.tcbEvaluationDataNumber, identity.tcbEvaluationDataNumber] as const;
  if (numbers[0] === numbers[1]) return;
  transcript.skip(
    TDX_RULES.evaluationNumber,
    `note: TCB info has ${numbers[0]} and QE identity ${numbers[1]}: they are of two publications; fetch both anew with the same \`update\``,
  );
}

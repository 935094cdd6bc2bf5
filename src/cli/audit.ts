// `assay audit verify [FOLDER]`: the hash chain of the audit log, and every run's signed head. Exit 0 intact,
// 1 not. A run whose receipt key was not given is reported as vouched for only by the folder itself; a given
// key that no run has is exit 1, and so is a given receipt that no line names.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findReceipt } from '../audit/find-receipt.ts';
import { verifyAudit, type AuditVerdict } from '../audit/write.ts';
import { isRecord } from '../base/shape.ts';
import { CONFIG_OPTIONS, loadConfig, parseArguments, UsageError } from './arguments.ts';

export async function auditCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    {
      ...CONFIG_OPTIONS,
      'receipt-key': { type: 'string', multiple: true },
      receipt: { type: 'string' },
      json: { type: 'boolean' },
    },
    true,
  );
  const [action, given, ...more] = positionals;
  const receiptKeys = (values['receipt-key'] ?? []) as readonly string[];
  if (action !== 'verify' || more.length > 0)
    throw new UsageError('usage: assay audit verify [FOLDER] [--receipt-key HEX]... [--receipt FILE]');
  if (!receiptKeys.every((key) => /^[0-9a-fA-F]{64}$/.test(key)))
    throw new UsageError('--receipt-key is 64 hex digits');
  const config = given === undefined ? loadConfig(values) : undefined;
  const folder = given ?? config?.audit.folder ?? join('.', 'audit');
  const verdict = await verifyAudit(folder, receiptKeys);
  const file = values['receipt'];
  const receipts = typeof file === 'string' ? await findAll(folder, await digestsIn(file)) : [];
  const told = typeof file === 'string' ? { ...verdict, receipts } : verdict;
  const words = inWords(verdict) + receipts.map(receiptLine).join('');
  process.stdout.write(values['json'] === true ? `${JSON.stringify(told)}\n` : words);
  return verdict.ok && receipts.every(({ line }) => line !== null) ? 0 : 1;
}

interface FoundReceipt {
  /** SHA-256, hex. */
  readonly receipt: string;
  /** Null: no line names it. */
  readonly line: number | null;
}

function receiptLine({ receipt, line }: FoundReceipt): string {
  return line === null ? `receipt ${receipt}: NOT in the log\n` : `receipt ${receipt}: record ${line}\n`;
}

async function findAll(folder: string, digests: readonly string[]): Promise<readonly FoundReceipt[]> {
  const found: FoundReceipt[] = [];
  for (const receipt of digests) found.push({ receipt, line: await findReceipt(folder, receipt) });
  return found;
}

/** SHA-256 of the receipts of a file: a receipt as it is, `{receipt, salt}`, or an archive. */
async function digestsIn(file: string): Promise<readonly string[]> {
  const bytes = await readFile(file).catch(() => {
    throw new UsageError('--receipt FILE cannot be read');
  });
  if (bytes[0] !== 0x7b) return [digestOfReceipt(bytes)];
  const receipts = receiptTexts(bytes.toString());
  if (receipts.length === 0)
    throw new UsageError('--receipt FILE has no receipt, or one that cannot be read');
  return receipts.map((text) => digestOfReceipt(Buffer.from(text, 'base64')));
}

function receiptTexts(text: string): readonly string[] {
  try {
    const json: unknown = JSON.parse(text);
    const entries: unknown = isRecord(json) && Array.isArray(json['receipts']) ? json['receipts'] : [json];
    const texts = (entries as readonly unknown[]).map((entry) => isRecord(entry) && entry['receipt']);
    // One that cannot be read is not left out: the others would pass for all.
    return texts.every((each) => typeof each === 'string') ? texts : [];
  } catch {
    return [];
  }
}

function digestOfReceipt(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function inWords(verdict: AuditVerdict): string {
  if (!verdict.ok) return `audit log NOT intact: ${verdict.problem}\n`;
  const lines = [`audit log intact: ${verdict.count} records, head signed by ${verdict.receiptKey}`];
  if (verdict.first > 0)
    lines.push(`records 0 to ${verdict.first - 1} were removed by the server, as it was configured to`);
  for (const [i, run] of verdict.runs.entries()) {
    const unsigned = run.unsigned > 0 ? `, the last ${run.unsigned} NOT SIGNED` : '';
    const state = run.signed === null ? ', NOT SIGNED' : unsigned;
    const anchor = run.anchored ? 'attested key given' : 'NOT ANCHORED';
    lines.push(`run ${i + 1}: records ${run.from} to ${run.to - 1}${state}, key ${run.key}, ${anchor}`);
  }
  if (verdict.unanchored > 0) {
    lines.push(
      `${verdict.unanchored} of ${verdict.runs.length} runs not anchored: whoever could write to the folder before the next anchored run`,
      'may have made them up. Compare their keys with claim 6 of attestations of those runs: --receipt-key HEX, once for each.',
    );
  }
  if (verdict.unsigned > 0) lines.push(`${verdict.unsigned} records at the end are newer than the head`);
  return `${lines.join('\n')}\n`;
}

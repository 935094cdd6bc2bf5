// `assay audit verify [FOLDER]`: the hash chain of the audit log and its signed head. Exit 0 intact, 1 not.

import { join } from 'node:path';
import { verifyAudit } from './audit.ts';
import { CONFIG_OPTIONS, loadConfig, parseArguments, textOf, UsageError } from './cli-common.ts';

export async function auditCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { ...CONFIG_OPTIONS, 'receipt-key': { type: 'string' }, json: { type: 'boolean' } },
    true,
  );
  const [action, given, ...more] = positionals;
  const receiptKey = textOf(values['receipt-key']);
  if (action !== 'verify' || more.length > 0) throw new UsageError('usage: assay audit verify [FOLDER] [--receipt-key HEX]');
  if (receiptKey !== undefined && !/^[0-9a-fA-F]{64}$/.test(receiptKey)) throw new UsageError('--receipt-key is 64 hex digits');
  const config = given === undefined ? loadConfig(values) : undefined;
  const folder = given ?? config?.audit.folder ?? join('.', 'audit');
  const verdict = await verifyAudit(folder, receiptKey);
  if (values['json'] === true) process.stdout.write(`${JSON.stringify(verdict)}\n`);
  else if (verdict.ok) {
    const against = receiptKey === undefined ? ', not compared with an attested key' : '';
    process.stdout.write(`audit log intact: ${verdict.count} records, head signed by ${verdict.receiptKey}${against}\n`);
    if (verdict.unsigned > 0) process.stdout.write(`${verdict.unsigned} records at the end are newer than the head\n`);
  } else process.stdout.write(`audit log NOT intact: ${verdict.problem}\n`);
  return verdict.ok ? 0 : 1;
}

// `assay audit verify [FOLDER]`: the hash chain of the audit log, and every run's signed head. Exit 0 intact,
// 1 not. A run whose receipt key was not given is reported as vouched for only by the folder itself; a given
// key that no run has is exit 1.

import { join } from 'node:path';
import { verifyAudit, type AuditVerdict } from '../audit/write.ts';
import { CONFIG_OPTIONS, loadConfig, parseArguments, UsageError } from './arguments.ts';

export async function auditCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { ...CONFIG_OPTIONS, 'receipt-key': { type: 'string', multiple: true }, json: { type: 'boolean' } },
    true,
  );
  const [action, given, ...more] = positionals;
  const receiptKeys = (values['receipt-key'] ?? []) as readonly string[];
  if (action !== 'verify' || more.length > 0)
    throw new UsageError('usage: assay audit verify [FOLDER] [--receipt-key HEX]...');
  if (!receiptKeys.every((key) => /^[0-9a-fA-F]{64}$/.test(key)))
    throw new UsageError('--receipt-key is 64 hex digits');
  const config = given === undefined ? loadConfig(values) : undefined;
  const folder = given ?? config?.audit.folder ?? join('.', 'audit');
  const verdict = await verifyAudit(folder, receiptKeys);
  process.stdout.write(values['json'] === true ? `${JSON.stringify(verdict)}\n` : inWords(verdict));
  return verdict.ok ? 0 : 1;
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

// `assay-verify seal https://HOST`: judges evidence for sealed bodies and prints the key to seal to, for
// clients in other languages, which seal by themselves and let this one verifier judge (docs/sealed.md §7).
// Run once per evidence; it prints a key only when the evidence was accepted.

import { sealedFetch } from '../../client/sealed-fetch.ts';
import type { SealedResult } from '../../appraise/appraise.ts';
import { fromHex } from '../../encoding/bytes.ts';
import type { Policy } from '../../appraise/policy.ts';
import { keyIdOf } from '../../sealed/request.ts';
import { AttestationError } from '../../transcript/errors.ts';
import { sealedTransport } from '../sealed-transport.ts';
import type { Command } from './arguments.ts';
import { errorInFlags } from './flags.ts';
import { readJudgingOptions } from './judging-options.ts';
import { printableJson } from './printable.ts';
import { renderVerdict } from './table.ts';
import { type CliWorld, EXIT, type ExitCode } from './world.ts';

type Seal = Extract<Command, { kind: 'seal' }>;

export async function commandSeal(command: Seal, world: CliWorld): Promise<ExitCode> {
  const { close, policy, memory, endorsements, vtpm } = await readJudgingOptions(command, world);
  const transport = sealedTransport(command.timeoutMs);
  const { origin } = command.origin;
  try {
    const { fetch } = transport;
    const { timeoutMs: evidenceTimeout } = command;
    const sealed = sealedFetch({
      policy,
      memory,
      endorsements,
      vtpm,
      fetch,
      now: world.now,
      evidenceTimeout,
    });
    const result = await sealed.verify(origin);
    if (command.json) world.stdout(`${printableJson(keyOf(result, policy), 2)}\n`);
    else world.stdout(`${renderVerdict(origin, { result }).join('\n')}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    const known = errorInFlags(error);
    if (known.transcript.length === 0) throw known;
    world.stderr(`${renderVerdict(origin, { error: known }).join('\n')}\n`);
    return EXIT[known.kind];
  } finally {
    await transport.close();
    await close();
  }
}

/** Seconds since 1970; `expires`: ask again before it. */
function keyOf({ hpkeKey, receiptKey, models, issuedAt }: SealedResult, policy: Policy): unknown {
  return {
    key: hpkeKey,
    key_id: keyIdOf(fromHex(hpkeKey)),
    receipt_key: receiptKey,
    models: Object.fromEntries(models),
    issued_at: issuedAt,
    expires: issuedAt + policy.maxEvidenceAge,
  };
}

// Simulated AMD hierarchies for tests: keys are generated once per machine and kept under .cache/simulated/ (RSA keys take
// seconds), certificates are issued anew for each product at a fixed time.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createSimulatedAmd, type SimulatedAmd, type SimulatedAmdKeys, type SimulatedAmdOptions } from '../../attestation/simulated/amd.ts';
import type { SnpEvidence } from '../../attestation/snp/verify.ts';

export const NOW = new Date('2026-06-01T12:00:00Z');

/** A hierarchy over cached keys. 2048-bit RSA unless asked: the size changes nothing but time. */
export async function simulatedAmd(options: Omit<SimulatedAmdOptions, 'keys'> = {}): Promise<SimulatedAmd> {
  return createSimulatedAmd({ now: NOW, ...options, keys: await cachedKeys(options.rsaBits ?? 2048) });
}

const made = new Map<number, Promise<SimulatedAmdKeys>>();

/** One set per size and worker, also when several hierarchies are asked for at once on a cold cache. */
function cachedKeys(rsaBits: 2048 | 4096): Promise<SimulatedAmdKeys> {
  const known = made.get(rsaBits) ?? loadKeys(rsaBits);
  made.set(rsaBits, known);
  return known;
}

async function loadKeys(rsaBits: 2048 | 4096): Promise<SimulatedAmdKeys> {
  const folder = fileURLToPath(new URL('../../.cache/simulated/', import.meta.url));
  const path = `${folder}amd-${rsaBits}.json`;
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as SimulatedAmdKeys;
  } catch {
    const keys = await (await createSimulatedAmd({ rsaBits, now: NOW })).exportKeys();
    mkdirSync(folder, { recursive: true });
    // Another worker may be doing the same: whole files only.
    writeFileSync(`${path}.${process.pid}`, JSON.stringify(keys));
    renameSync(`${path}.${process.pid}`, path);
    return keys;
  }
}

/** Evidence of the hierarchy with the parts given replaced. */
export async function evidenceOf(simulated: SimulatedAmd, parts: Partial<SnpEvidence> = {}): Promise<SnpEvidence> {
  return {
    report: parts.report ?? (await simulated.signReport()),
    vek: parts.vek ?? simulated.vek,
    chain: parts.chain ?? [simulated.intermediate, simulated.ark],
    ...('crl' in parts ? { crl: parts.crl } : { crl: simulated.crl }),
  };
}

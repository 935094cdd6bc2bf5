// Links between devices, both ways: GPUs name the switches their links lead to, switches name themselves and
// the GPUs at their ports. A GPU does not name itself, so that the sides meet in the switches alone. The two
// spell a switch's id in opposite byte order.

import type { GpuFields } from './fields.ts';

const NO_LINK = '0'.repeat(16);

interface Linked {
  /** As messages name it. */
  readonly name: string;
  readonly fields: GpuFields;
}

/** The first contradiction; undefined: all switches and GPUs are attested, and name each other. */
export function topologyProblem(gpus: readonly Linked[], switches: readonly Linked[]): string | undefined {
  const own = switches.map(({ fields }) => reversed(fields.pdis[0] ?? ''));
  if (new Set(own).size !== own.length) return 'two switches have the same id';
  const known = new Set(own);
  for (const { name, fields } of gpus) {
    const seen = linked(fields.pdis);
    const foreign = [...seen].find((pdi) => !known.has(pdi));
    if (foreign !== undefined) return `${name} is linked to switch ${foreign}, which is not attested`;
    const unseen = own.find((pdi) => !seen.has(pdi));
    if (unseen !== undefined) return `${name} is not linked to switch ${unseen}`;
  }
  const [first] = switches;
  const ports = linked(first?.fields.gpuPdis ?? []);
  for (const { name, fields } of switches) {
    const others = linked(fields.gpuPdis);
    if (others.size !== ports.size || [...others].some((pdi) => !ports.has(pdi)))
      return `${name} lists other GPUs than ${first?.name ?? 'the first'}`;
    if (others.size !== gpus.length) return `${name} lists ${others.size} GPUs, ${gpus.length} are attested`;
  }
  return undefined;
}

/** Whether a switch has to be attested with these GPUs: one says PPCIE, or names a switch. */
export function needsSwitches(gpus: readonly Linked[]): boolean {
  return gpus.some(({ fields }) => fields.mode === 'ppcie' || linked(fields.pdis).size > 0);
}

function linked(pdis: readonly string[]): ReadonlySet<string> {
  return new Set(pdis.filter((pdi) => pdi !== NO_LINK));
}

function reversed(hex: string): string {
  return (hex.match(/../g) ?? []).toReversed().join('');
}

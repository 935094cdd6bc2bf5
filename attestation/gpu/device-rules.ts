// Rules on where reports come from, G1 to G10: their form, the device's certificates, the signature, the
// nonce, the firmware id, and that no device counts twice.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { nameText, validityProblem } from '../x509/path.ts';
import { deviceChainProblem, readFwid } from './certificates.ts';
import { countText, recordAll } from './judge.ts';
import { rootProblem } from './roots.ts';
import { GPU_RULES } from './rules.ts';
import type { JudgedDevice, GpuContext } from './subject.ts';

/** Whether the reports are those of the devices their trusted certificates name; nonce and dates aside. */
export function checkDevices(
  transcript: Transcript,
  devices: readonly JudgedDevice[],
  { now, nonce, roots }: GpuContext,
): boolean {
  const all = countText(devices.length, 'device');
  const each = (problemOf: (device: JudgedDevice) => string | undefined): string[] =>
    devices.flatMap((device) => {
      const problem = problemOf(device);
      return problem === undefined ? [] : [`${device.name}: ${problem}`];
    });
  recordAll(
    transcript,
    GPU_RULES.trailing,
    each(({ report }) =>
      report.trailing === 0 ? undefined : `${countText(report.trailing, 'byte')} after the signature`,
    ),
    all,
  );
  const chained = recordAll(transcript, GPU_RULES.chain, each(chainProblem), all);
  const rooted = recordAll(
    transcript,
    GPU_RULES.root,
    each(({ chain }) => {
      const root = chain.at(-1);
      return root === undefined ? 'there is no root' : rootProblem(root.raw, 'device', roots);
    }),
    rootText(roots),
  );
  recordAll(
    transcript,
    GPU_RULES.validity,
    each(({ chain }) => datesProblem(chain, now)),
    now.toISOString(),
  );
  const signed = recordAll(
    transcript,
    GPU_RULES.signature,
    each(({ signatures }) =>
      signatures.report ? undefined : 'the first certificate’s key does not verify the report',
    ),
    'ECDSA P-384 with SHA-384',
  );
  const named = recordAll(transcript, GPU_RULES.arch, each(archProblem), architecturesText(devices));
  const expected = toHex(nonce);
  const others = each(({ report }) =>
    equalBytes(report.nonce, nonce) ? undefined : `nonce is ${toHex(report.nonce)}`,
  );
  transcript.expect(
    GPU_RULES.nonce,
    others.length === 0,
    others.length === 0 ? expected : others.slice(0, 8).join('; '),
    { expected, actual: toHex(devices[0]?.report.nonce ?? new Uint8Array()) },
  );
  const fwids = recordAll(transcript, GPU_RULES.fwid, each(fwidProblem), fwidText(devices));
  recordAll(
    transcript,
    GPU_RULES.nvdec0,
    each(({ fields }) => (fields.nvdec0 === undefined ? 'it says neither on nor off' : undefined)),
    nvdec0Text(devices),
  );
  const twice = devices.filter(({ ueid }, i) => devices.findIndex((other) => other.ueid === ueid) !== i);
  recordAll(
    transcript,
    GPU_RULES.duplicate,
    twice.map(({ name, ueid }) => `${name} has the serial number ${ueid}, as one before it`),
    countText(new Set(devices.map(({ ueid }) => ueid)).size, 'serial number'),
  );
  return chained && rooted && signed && named && fwids;
}

function chainProblem({ chain, signatures }: JudgedDevice): string | undefined {
  const problem = deviceChainProblem(chain);
  if (problem !== undefined) return problem;
  const broken = signatures.links.findIndex((ok) => !ok);
  const child = chain[broken];
  return child === undefined ? undefined : `${nameText(child.subject)}: its signature does not verify`;
}

function datesProblem(chain: JudgedDevice['chain'], now: Date): string | undefined {
  for (const certificate of chain) {
    const problem = validityProblem(certificate, now);
    if (problem !== undefined) return `${nameText(certificate.subject)} is ${problem}`;
  }
  return undefined;
}

function archProblem({ claimed, family, familyNamed, chain }: JudgedDevice): string | undefined {
  if (!familyNamed) {
    const [leaf] = chain;
    return `certificates name no one family (${leaf === undefined ? 'none' : nameText(leaf.subject)})`;
  }
  return claimed === family.arch ? undefined : `evidence says ${claimed}, certificates are of ${family.arch}`;
}

function fwidProblem({ fields, chain }: JudgedDevice): string | undefined {
  if (fields.fwid === undefined) return undefined;
  const [leaf] = chain;
  const issued = leaf === undefined ? undefined : readFwid(leaf);
  if (issued === undefined) return 'the report has a firmware id, the leaf has none';
  if (equalBytes(issued, fields.fwid)) return undefined;
  return `report has ${toHex(fields.fwid)}, leaf was issued for ${toHex(issued)}`;
}

function fwidText(devices: readonly JudgedDevice[]): string {
  const absent = devices.filter(({ fields }) => fields.fwid === undefined).map(({ name }) => name);
  const compared = `${devices.length - absent.length} compared`;
  return absent.length === 0 ? compared : `${compared}; absent: ${absent.slice(0, 32).join(', ')}`;
}

function nvdec0Text(devices: readonly JudgedDevice[]): string {
  const gpus = devices.filter(({ family }) => family.kind === 'gpu');
  const enabled = gpus.filter(({ fields }) => fields.nvdec0 === 'enabled').length;
  return `on in ${enabled} of ${countText(gpus.length, 'GPU')}`;
}

function architecturesText(devices: readonly JudgedDevice[]): string {
  return [...new Set(devices.map(({ family }) => family.arch))].join(', ');
}

function rootText(roots: GpuContext['roots']): string {
  if (roots === undefined) return 'NVIDIA Device Identity CA';
  return roots === 'carried' ? 'simulated: whatever root the evidence brings' : 'a root given in its place';
}

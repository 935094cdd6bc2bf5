// `assay-verify evidence` with the tee `nvidia`: the example of docs/formats.md run as it stands, the closed
// shape of its input, and the command itself.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { type EvidenceResult, runEvidence } from '../../../attestation/appraise/evidence-contract.ts';
import { toBase64, toHex } from '../../../attestation/encoding/bytes.ts';
import * as gpu from '../../../attestation/gpu/index.ts';
import { commandEvidence } from '../../../attestation/node/cli/evidence.ts';
import { encodePem } from '../../../attestation/simulated/issue.ts';
import { GPU_NONCE, GPU_NOW, hierarchy } from '../../fixtures/attestation/gpu-simulated.ts';
import { gpuJson, gpuVector } from '../../fixtures/attestation/gpu-vectors.ts';
import { haveVectors } from '../../fixtures/shared.ts';

type Members = Readonly<Record<string, unknown>>;

/** The two JSON blocks of docs/formats.md that show the tee `nvidia`. */
function documented(): readonly [input: Members, output: string] {
  const text = readFileSync(new URL('../../../docs/formats.md', import.meta.url), 'utf8');
  const blocks = [...text.matchAll(/```json\n([\s\S]*?)```/g)].map(([, json = '']) => json);
  const input = blocks.find((json) => json.includes('"tee": "nvidia"')) ?? '';
  const output = blocks[blocks.indexOf(input) + 1] ?? '';
  return [JSON.parse(input) as Members, output];
}

async function simulatedInput(changes: Members = {}): Promise<string> {
  const { nvidia, evidence } = await hierarchy();
  const { evidences, rims, ocsp } = gpu.writeGpuEvidence(evidence);
  const roots = [encodePem(nvidia.root), encodePem(nvidia.manifestRoot)];
  const all = {
    tee: 'nvidia',
    now: GPU_NOW.toISOString(),
    nonce: toHex(GPU_NONCE),
    evidences,
    rims,
    ocsp,
    roots,
  };
  return JSON.stringify({ ...all, ...changes });
}

function codeOf({ exitCode, output }: EvidenceResult): readonly [number, string | null] {
  return [exitCode, output.code];
}

describe.skipIf(!haveVectors)('the example of docs/formats.md', () => {
  test('has the output that is shown', async () => {
    const [input, shown] = documented();
    const rims = (input['rims'] as readonly { readonly id: string }[]).map(({ id }) => ({
      id,
      rim: toBase64(gpuVector(`hopper-595-complete/${id}.xml`)),
    }));
    const evidences = gpuJson('hopper-595-complete/evidence.json');
    const { exitCode, output } = await runEvidence(JSON.stringify({ ...input, evidences, rims }), {
      gpu: async () => gpu,
    });
    expect(exitCode).toBe(0);
    const [first] = output.checks;
    const { claims, ...rest } = JSON.parse(shown.replace(', … ]', ' ]')) as Members;
    expect(rest).toEqual({ accepted: true, code: null, checks: [first] });
    expect(output.claims).toEqual(claims);
  });
});

describe('the contract', () => {
  test('simulated evidence is accepted with its roots given, and the output says so', async () => {
    const { exitCode, output } = await runEvidence(await simulatedInput(), { gpu: async () => gpu });
    expect(exitCode).toBe(0);
    expect(output.claims['rootsReplaced']).toBe(true);
    expect(
      codeOf(await runEvidence(await simulatedInput({ roots: undefined }), { gpu: async () => gpu })),
    ).toEqual([10, 'gpu_root']);
  });

  test('without the verifier of `@assay/attestation/gpu` it is not judged', async () => {
    expect(codeOf(await runEvidence(await simulatedInput()))).toEqual([20, 'gpu_evidence']);
  });

  test('the command has it at hand', async () => {
    const input = new TextEncoder().encode(await simulatedInput());
    let printed = '';
    const stdout = (text: string): void => {
      printed += text;
    };
    expect(await commandEvidence({ stdin: () => Promise.resolve(input), stdout })).toBe(0);
    expect(JSON.parse(printed)).toMatchObject({ accepted: true, claims: { devices: [{ arch: 'HOPPER' }] } });
  });

  test.each([
    ['an unknown key', { more: 1 }, [30, 'malformed_evidence']],
    ['a key of another tee', { quote: 'AA==' }, [30, 'malformed_evidence']],
    ['no nonce', { nonce: undefined }, [30, 'malformed_evidence']],
    ['a nonce of another length', { nonce: '00' }, [30, 'malformed_length']],
    ['no evidence', { evidences: [] }, [30, 'malformed_evidence']],
    ['evidence that is no base64', { evidences: [{ arch: 'HOPPER', evidence: '*', certificate: '' }] }, [30, 'malformed_base64']],
    ['a report that is none', { evidences: [{ arch: 'HOPPER', evidence: 'AAAA', certificate: '' }] }, [30, 'malformed_certificate']],
    ['a manifest without its id', { rims: [{ rim: '' }] }, [30, 'malformed_evidence']],
    ['an id twice', { rims: [{ id: 'a', rim: '' }, { id: 'a', rim: '' }] }, [30, 'malformed_evidence']],
    ['an answer that is none', { ocsp: ['MAA='] }, [30, 'malformed_ocsp']],
    ['a policy that is none', { policy: { counts: 1 } }, [30, 'malformed_policy']],
    ['an unknown mode', { policy: { mode: ['cc'] } }, [30, 'malformed_policy']],
    ['an empty list', { policy: { arch: [] } }, [30, 'malformed_policy']],
    ['a version that is none', { policy: { minDriver: 'new' } }, [30, 'malformed_policy']],
  ] as const)('%s', async (_what, changes, expected) => {
    expect(codeOf(await runEvidence(await simulatedInput(changes), { gpu: async () => gpu }))).toEqual(expected);
  }); // prettier-ignore

  test('an architecture nobody knows', async () => {
    const { evidence } = await hierarchy();
    const { evidences } = gpu.writeGpuEvidence({ ...evidence, devices: evidence.devices.map((each) => ({ ...each, arch: 'VOLTA', certificates: each.certificates.slice(4) })) }); // prettier-ignore
    expect(codeOf(await runEvidence(await simulatedInput({ evidences }), { gpu: async () => gpu }))).toEqual([
      20,
      'gpu_arch',
    ]);
  });

  test('the three containers of NVIDIA’s tools', async () => {
    const { evidence } = await hierarchy();
    const { evidences } = gpu.writeGpuEvidence(evidence);
    const bare = (evidences as readonly Members[]).map(({ evidence: report, certificate }) => ({ evidence: report, certificate })); // prettier-ignore
    for (const container of [evidences, { evidences }, { nonce: 'any', arch: 'HOPPER', evidence_list: bare }])
      expect(
        codeOf(await runEvidence(await simulatedInput({ evidences: container }), { gpu: async () => gpu })),
      ).toEqual([0, null]);
  });
});

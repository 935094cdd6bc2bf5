// The policy's own rules of a verdict, P1 to P8 and D13: which TEE is admitted and by which roots, and
// whether build, models, machine and configuration are listed. Refused: whatever a list does not name; GPU
// evidence, which cannot be judged here.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, fromBase64, toHex } from '../encoding/bytes.ts';
import type { Claims } from '../protocol/claims.ts';
import type { AttestationDocument, SnpEndorsements, TdxEndorsements } from '../protocol/document.ts';
import { AMD_ROOTS } from '../snp/roots.ts';
import { INTEL_ROOT_DER_SHA256 } from '../tdx/roots.ts';
import type { Transcript } from '../transcript/checks.ts';
import type { Hardware } from './hardware.ts';
import type { Policy } from './policy.ts';
import type { Reference } from './policy-references.ts';
import { RULES } from './rules.ts';
import { softwareRootOf } from './software-root.ts';

/**
 * P1, P2, D13. Returns the roots that replace the pinned ones: only for simulated evidence that was allowed.
 */
export function admitTee(
  transcript: Transcript,
  document: AttestationDocument,
  policy: Policy,
  rootsReplaced = false,
): readonly Uint8Array[] | undefined {
  const { teeType } = document;
  if (teeType !== 'simulated') {
    transcript.expect(RULES.tee, policy.tee.includes(teeType), teeType, {
      expected: policy.tee.join(' or '),
      actual: teeType,
    });
    // A verifier of clouds with other roots was handed over in code; a policy still has to take simulation.
    transcript.expect(
      RULES.simulated,
      !rootsReplaced || policy.danger.simulated === true,
      rootsReplaced ? SIMULATED_CLOUD : `${teeType}: judged by the pinned vendor roots`,
    );
    return undefined;
  }
  const ark = simulatedRoot(document.endorsements);
  const digest = ark === undefined ? undefined : toHex(sha256(ark));
  const { simulated } = policy.danger;
  const allowed = simulated === true || (simulated !== false && simulated === digest);
  transcript.skip(RULES.tee, 'simulated: policies speak of real TEEs only');
  const detail = `evidence is simulated, under the root ${digest ?? 'unknown'}`;
  if (allowed)
    transcript.pass(RULES.simulated, `${detail}, which was allowed: nothing about hardware is proven`);
  else if (simulated === false)
    transcript.fail(RULES.simulated, detail, { expected: 'real hardware', actual: 'simulated' });
  else transcript.fail(RULES.simulated, detail, { expected: String(simulated), actual: digest ?? 'no root' });
  const isVendors =
    digest !== undefined &&
    (AMD_ROOTS.some(({ derSha256 }) => derSha256 === digest) || INTEL_ROOT_DER_SHA256.includes(digest));
  transcript.expect(
    RULES.teeRepeated,
    !isVendors,
    isVendors ? 'document says simulated, its root is a vendor’s' : 'simulated',
  );
  return allowed && ark !== undefined ? [ark] : undefined;
}

const SIMULATED_CLOUD = 'evidence is simulated, under roots given in code: nothing about hardware is proven';

function simulatedRoot(endorsements: SnpEndorsements | TdxEndorsements): Uint8Array | undefined {
  if ('vek' in endorsements) return endorsements.chain.at(-1);
  const last = [
    ...endorsements.tcbInfoIssuerChain.matchAll(
      /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g,
    ),
  ].at(-1);
  return last?.[1] === undefined
    ? undefined
    : fromBase64(last[1].replace(/\s/g, ''), 'tcb_info_issuer_chain');
}

/** P4–P8. Returns what the policy calls the build. */
export function applyPolicy(
  transcript: Transcript,
  document: AttestationDocument,
  policy: Policy,
  { hardware, claims }: { readonly hardware: Hardware; readonly claims: Claims | undefined },
): string | undefined {
  const root = softwareRootOf(document.teeType);
  transcript.expect(RULES.softwareRoot, policy.softwareRoot.includes(root), root, {
    expected: policy.softwareRoot.join(' or '),
    actual: root,
  });
  const reference = policy.measurements.find((candidate) => isReference(candidate, hardware));
  const found = describeSoftware(hardware);
  const known = policy.measurements.filter((candidate) => isOfKind(candidate, hardware)).length;
  if (reference !== undefined) transcript.pass(RULES.measurement, reference.name ?? found);
  else
    transcript.fail(RULES.measurement, `${found} is not ${referenceText(known, hardware)}`, {
      expected: known === 0 ? 'a reference value in the policy' : `one of the ${known} in the policy`,
      actual: found,
    });

  applyModels(transcript, document, policy);

  if (policy.chips === undefined)
    transcript.skip(RULES.chips, 'no allow-list in the policy: any genuine machine will do');
  else {
    const listed = hardware.chip !== undefined && policy.chips.includes(hardware.chip);
    transcript.expect(RULES.chips, listed, hardware.chip ?? 'the evidence names no chip');
  }
  if (policy.configs === undefined) transcript.skip(RULES.configs, 'no allow-list in the policy');
  else if (claims === undefined) transcript.fail(RULES.configs, 'the claims could not be read');
  else transcript.expect(RULES.configs, policy.configs.includes(toHex(claims.config)), toHex(claims.config));
  // Prompts would be processed on a device that was not judged, so GPU evidence is refused
  // until it can be verified.
  if (claims?.gpu !== undefined)
    transcript.fail(
      RULES.gpu,
      `the claims name GPU evidence ${toHex(claims.gpu)}, which this verifier cannot judge`,
    );
  return reference?.name;
}

function referenceText(known: number, { pcrs, format }: Hardware): string {
  const vendors = format === 'snp' ? 'SEV-SNP' : 'TDX';
  if (known === 0)
    return `a reference value: the policy lists none for ${pcrs === undefined ? vendors : 'PCRs'}`;
  return known === 1
    ? 'the one reference value of the policy'
    : `one of the ${known} reference values of the policy`;
}

/**
 * P5, P6. Every model of the server must be listed, so that whatever a request names, a
 * proven model answers or none.
 */
function applyModels(transcript: Transcript, document: AttestationDocument, policy: Policy): void {
  const { models } = policy;
  if (models === undefined) {
    transcript.skip(RULES.models, 'any model is allowed: which model answers is not proven');
    transcript.skip(RULES.modelDigests, 'any model is allowed');
    return;
  }
  const served = document.models.map(({ id, sha256: digest }) => [id, toHex(digest)] as const);
  const unlisted = served.filter(([id]) => !models.has(id));
  if (unlisted.length === 0) transcript.pass(RULES.models, served.map(([id]) => id).join(', '));
  else {
    const some = unlisted.slice(0, 8).map(([id, digest]) => `${JSON.stringify(id)} (sha256 ${digest})`);
    transcript.fail(
      RULES.models,
      `served and not listed: ${some.join(', ')}${unlisted.length > 8 ? ` and ${unlisted.length - 8} more` : ''}`,
      {
        expected: [...models.keys()].slice(0, 8).join(', ') || 'a listed model',
        actual: unlisted
          .map(([id]) => id)
          .slice(0, 8)
          .join(', '),
      },
    );
  }
  const wrong = served.find(([id, digest]) => models.has(id) && models.get(id) !== digest);
  if (wrong === undefined) transcript.pass(RULES.modelDigests, 'as listed');
  else {
    const expected = models.get(wrong[0]) ?? '';
    transcript.fail(
      RULES.modelDigests,
      `${JSON.stringify(wrong[0])} has sha256 ${wrong[1]}, expected ${expected}`,
      {
        expected,
        actual: wrong[1],
      },
    );
  }
}

/** Whether a reference value speaks of what this evidence shows: PCRs, RTMRs or a launch measurement. */
function isOfKind(reference: Reference, { pcrs, format }: Hardware): boolean {
  if (pcrs !== undefined || format === 'nitro') return 'pcrs' in reference;
  return format === 'snp' ? 'measurement' in reference : 'rtmr1' in reference;
}

function isReference(reference: Reference, hardware: Hardware): boolean {
  if (!isOfKind(reference, hardware)) return false;
  if ('measurement' in reference) return reference.measurement === toHex(hardware.measurement);
  if ('pcrs' in reference)
    return Object.entries(reference.pcrs).every(
      ([index, expected]) => expected === toHex(hardware.pcrs?.get(Number(index)) ?? new Uint8Array()),
    );
  const firmware =
    'mrTd' in reference ? reference.mrTd === toHex(hardware.measurement) : hardware.endorsedFirmware === true;
  return (
    firmware &&
    [reference.rtmr0, reference.rtmr1, reference.rtmr2, reference.rtmr3].every(
      (expected, i) => expected === undefined || expected === toHex(hardware.rtmr?.[i] ?? new Uint8Array()),
    )
  );
}

function describeSoftware(hardware: Hardware): string {
  const { pcrs } = hardware;
  if (pcrs !== undefined)
    return [4, 7, 12].map((index) => `PCR${index} ${toHex(pcrs.get(index) ?? new Uint8Array())}`).join(', ');
  if (hardware.format === 'snp') return `MEASUREMENT ${toHex(hardware.measurement)}`;
  return `MRTD ${toHex(hardware.measurement)}, RTMR0–2 digest ${toHex(sha256(concatBytes(...(hardware.rtmr ?? []).slice(0, 3)))).slice(0, 16)}…`;
}

// Real TDX evidence as this repository's verifier takes it. Publishers wrap collateral in their own ways (JSON with the
// inner text and signature apart, YAML, loose files); here each becomes the response bodies Intel's service sent.
import { readFileSync } from 'node:fs';
import type { TdxCollateral } from '../../attestation/tdx/collateral.ts';
import { vectorPath } from '../fixtures/shared.ts';

export const readVector = (path: string): Uint8Array => new Uint8Array(readFileSync(vectorPath(`tdx/${path}`)));
export const readVectorText = (path: string): string => readFileSync(vectorPath(`tdx/${path}`), 'utf8');

interface Split {
  readonly pck_crl_issuer_chain: string;
  readonly root_ca_crl: string;
  readonly pck_crl: string;
  readonly tcb_info_issuer_chain: string;
  readonly tcb_info: string;
  readonly tcb_info_signature: string;
  readonly qe_identity_issuer_chain: string;
  readonly qe_identity: string;
  readonly qe_identity_signature: string;
}

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));

export function joinCollateral(split: Split): TdxCollateral {
  return {
    tcbInfo: `{"tcbInfo":${split.tcb_info},"signature":"${split.tcb_info_signature}"}`,
    tcbInfoIssuerChain: split.tcb_info_issuer_chain,
    qeIdentity: `{"enclaveIdentity":${split.qe_identity},"signature":"${split.qe_identity_signature}"}`,
    qeIdentityIssuerChain: split.qe_identity_issuer_chain,
    pckCrl: hex(split.pck_crl),
    pckCrlIssuerChain: split.pck_crl_issuer_chain,
    rootCaCrl: hex(split.root_ca_crl),
  };
}

/** The subset of YAML these files use: block scalars and one double-quoted string per key. */
export function readYamlCollateral(path: string): TdxCollateral {
  const values: Record<string, string> = {};
  let key = '';
  for (const line of readVectorText(path).split('\n')) {
    const start = /^([a-z_]+): (.*)$/.exec(line);
    if (start === null) {
      if (line.trim() !== '') values[key] = `${values[key] ?? ''}${line.trim()}\n`;
      continue;
    }
    key = start[1] ?? '';
    const value = start[2] ?? '';
    values[key] = value.startsWith('"') ? (JSON.parse(value) as string) : '';
  }
  for (const name of Object.keys(values)) if (!name.endsWith('chain')) values[name] = values[name]?.trim() ?? '';
  return joinCollateral(values as unknown as Split);
}

export const splitCollateral = (path: string): TdxCollateral => joinCollateral(JSON.parse(readVectorText(path)) as Split);

/** The loose files of one TCB info of March 2026 (evaluation number 18). */
export function collateral2026(fmspc: string): TdxCollateral {
  return {
    tcbInfo: readVectorText(`collateral-2026/tcb_info_${fmspc}.json`),
    tcbInfoIssuerChain: readVectorText('collateral-2026/tcb_signing_chain.pem'),
    qeIdentity: readVectorText('collateral-2026/td_qe_identity.json'),
    qeIdentityIssuerChain: readVectorText('collateral-2026/qe_identity_signing_chain.pem'),
    pckCrl: readVector('collateral-2026/pck_crl_platform.der'),
    rootCaCrl: readVector('collateral-2026/root_ca_crl.der'),
  };
}

const pem = (der: Uint8Array): string =>
  `-----BEGIN CERTIFICATE-----\n${(
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  ).join('\n')}\n-----END CERTIFICATE-----\n`;

/** The loose files of July 2025 (evaluation number 17) for FMSPC 00806F050000. */
export function collateral2025(): TdxCollateral {
  const folder = 'v4-platform-outofdate';
  const signing = pem(readVector(`${folder}/signing.der`)) + pem(readVector(`${folder}/root.der`));
  return {
    tcbInfo: readVectorText(`${folder}/tcb_info_v3_with_tdx_module.json`),
    tcbInfoIssuerChain: signing,
    qeIdentity: readVectorText(`${folder}/qe_identity.json`),
    qeIdentityIssuerChain: signing,
    pckCrl: readVector(`${folder}/pck_platform_crl.der`),
    rootCaCrl: readVector(`${folder}/intel_root_ca_crl.der`),
  };
}

// Init data of Kata and Confidential Containers 0.1.0: a TOML file whose digest the guest's owner finds in a
// register of the evidence. The digest is over the bytes as given: a runtime that writes the TOML anew, with
// keys in another order or other quotes, has another digest, and this reader never does. Only `algorithm` and
// `version` are read, as plain top-level lines. Refused: CRLF, another version, another algorithm, either key
// twice or missing.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, fromBase64, fromUtf8 } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { gunzip } from './gunzip.ts';

/** Most bytes of the TOML, also once inflated. */
export const INIT_DATA_MAX = 1024 * 1024;

const ALGORITHMS = { sha256: 'SHA-256', sha384: 'SHA-384', sha512: 'SHA-512' } as const;

/** A digest, and what it is in each register. */
export interface InitDataDigests {
  readonly algorithm: keyof typeof ALGORITHMS;
  readonly digest: Uint8Array;
  /** SNP HOST_DATA, 32 bytes. */
  readonly hostData: Uint8Array;
  /** The digest is longer than HOST_DATA and was cut, as the field does. */
  readonly truncated: boolean;
  /** TDX MRCONFIGID, 48 bytes. */
  readonly mrConfigId: Uint8Array;
  /** PCR8 of a virtual TPM after one extension; undefined unless the digest is 32 bytes. */
  readonly pcr8: Uint8Array | undefined;
}

/**
 * The digests of init data, from its bytes as they are.
 * @throws AttestationError malformed `initdata_format`, `initdata_version`, `initdata_algorithm`;
 * `input_too_large`
 * @example const { hostData } = await measureInitData(await readFile('initdata.toml'));
 */
export async function measureInitData(toml: Uint8Array): Promise<InitDataDigests> {
  if (toml.length > INIT_DATA_MAX)
    throw malformed('input_too_large', `init data is ${toml.length} bytes, at most ${INIT_DATA_MAX}`);
  const algorithm = readAlgorithm(fromUtf8(toml, 'init data', 'initdata_format'));
  const digest = new Uint8Array(await crypto.subtle.digest(ALGORITHMS[algorithm], toml as BufferSource));
  return {
    algorithm,
    digest,
    hostData: adjusted(digest, 32),
    truncated: digest.length > 32,
    mrConfigId: adjusted(digest, 48),
    pcr8: digest.length === 32 ? initDataPcr8(digest) : undefined,
  };
}

/**
 * The TOML in an annotation `io.katacontainers.config.hypervisor.cc_init_data`: base64 of one gzip member.
 * @throws AttestationError malformed `initdata_annotation`, `malformed_base64`; `input_too_large`
 * @example const digests = await measureInitData(decodeInitData(annotation));
 */
export function decodeInitData(annotation: string): Uint8Array {
  if (annotation.length > 2 * INIT_DATA_MAX)
    throw malformed('input_too_large', `annotation is ${annotation.length} characters`);
  return gunzip(fromBase64(annotation, 'init data annotation'), INIT_DATA_MAX);
}

/** PCR8 after one extension by the digest, from zero. @throws TypeError unless it is 32 bytes */
export function initDataPcr8(digest: Uint8Array): Uint8Array {
  if (digest.length !== 32) throw new TypeError(`digest is ${digest.length} bytes: PCR8 takes 32`);
  return sha256(concatBytes(new Uint8Array(32), digest));
}

function adjusted(digest: Uint8Array, size: number): Uint8Array {
  const value = new Uint8Array(size);
  value.set(digest.subarray(0, size));
  return value;
}

function readAlgorithm(text: string): keyof typeof ALGORITHMS {
  if (text.includes('\r')) throw malformed('initdata_format', 'init data has CRLF line ends');
  // Top-level keys stand before the first table header.
  const top = text.split(/^\[/m, 1)[0] ?? '';
  if (/"""|'''/.test(top))
    throw malformed('initdata_format', 'init data has a text of several lines before its tables');
  const valueOf = (key: string): string => {
    const found = [
      ...top.matchAll(
        new RegExp(`^${key}[ \\t]*=[ \\t]*(?:"([^"\\\\\\n]*)"|'([^'\\n]*)')[ \\t]*(?:#.*)?$`, 'gm'),
      ),
    ];
    const value = found[0]?.[1] ?? found[0]?.[2];
    if (found.length !== 1 || value === undefined)
      throw malformed('initdata_format', `init data has ${found.length} lines of ${key}, expected one`);
    return value;
  };
  const version = valueOf('version');
  if (version !== '0.1.0')
    throw malformed('initdata_version', `init data is of version ${JSON.stringify(version.slice(0, 32))}`, {
      expected: '0.1.0',
      actual: version.slice(0, 32),
    });
  const algorithm = valueOf('algorithm');
  if (algorithm === 'sha256' || algorithm === 'sha384' || algorithm === 'sha512') return algorithm;
  throw malformed('initdata_algorithm', `init data names ${JSON.stringify(algorithm.slice(0, 32))}`, {
    expected: 'sha256, sha384 or sha512',
    actual: algorithm.slice(0, 32),
  });
}

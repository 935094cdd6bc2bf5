// Forms that texts in the configuration must have. Every text `serve` would refuse for its form is
// refused here, so that `config check` gives the same message; only a start can tell whether an address
// is free or a file exists.

import { isIP, isIPv4, isIPv6 } from 'node:net';
import { modelNameProblem } from '../base/model-name.ts';

export interface Form {
  /** Completes "must be …"; the type column of docs/configuration.md. */
  readonly name: string;
  /**
   * Why it is not of this form, for a parenthesis; '' when the name is reason enough.
   * Undefined: it has this form.
   */
  problem(value: string): string | undefined;
}

export const ADDRESS: Form = { name: 'host:port', problem: addressProblem };
export const HOST: Form = { name: 'a DNS name or an IP address', problem: hostProblem };
export const WEB_URL: Form = { name: 'an http or https URL', problem: urlProblem };
export const PROXY_URL: Form = { name: 'an http or https URL', problem: proxyProblem };
export const ORIGIN: Form = {
  name: '"*" or an origin such as "https://app.example"',
  problem: originProblem,
};
export const MODEL_ID: Form = { name: 'a model id', problem: idProblem };
export const BEARER: Form = { name: 'a key, or sha256: and 64 lower-case hex digits', problem: keyProblem };
export const TOKEN: Form = { name: 'a token', problem: tokenProblem };
export const SHA256_HEX: Form = { name: '64 lower-case hex digits', problem: matching(/^[0-9a-f]{64}$/) };
export const DURATION: Form = {
  name: 'a duration such as "30s", "5m", "1h", "0" or "-1"',
  problem: matching(/^(-1|\d{1,9}(\.\d{1,3})?(ms|s|m|h)?)$/),
};

/** A bearer key that is written as its SHA-256. */
export const KEY_DIGEST = /^sha256:[0-9a-f]{64}$/;

/** `sun_path` of unix(7), less the zero at its end. */
export const MAX_SOCKET_BYTES = 107;
const MAX_PATH_BYTES = 4095;
const MAX_PART_BYTES = 255;
const MAX_NAME_CHARACTERS = 200;

/** Why no file system takes this absolute path. */
export function pathProblem(path: string, maxBytes = MAX_PATH_BYTES): string | undefined {
  const bytes = Buffer.byteLength(path);
  if (bytes > maxBytes) return `it has ${bytes} bytes, at most ${maxBytes} are a path here`;
  const longest = Math.max(...path.split('/').map((part) => Buffer.byteLength(part)));
  return longest > MAX_PART_BYTES
    ? `a part of it has ${longest} bytes, at most ${MAX_PART_BYTES} are a name`
    : undefined;
}

/** Of the name in `[api.keys.<name>]`, which log and audit record instead of the key. */
export function keyNameProblem(name: string): string | undefined {
  if (name === '') return 'the name is empty';
  // Readers of the log and the audit parse objects, where this key is special.
  if (name === '__proto__') return 'the name is not one a log can hold';
  if (name.length > MAX_NAME_CHARACTERS)
    return `the name has ${name.length} characters, at most ${MAX_NAME_CHARACTERS} are accepted`;
  return /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u.test(name)
    ? 'the name holds characters that cannot be seen'
    : undefined;
}

function matching(pattern: RegExp): Form['problem'] {
  return (value) => (pattern.test(value) ? undefined : '');
}

function addressProblem(value: string): string | undefined {
  const match = /^(\[[^\]]*\]|[^:[\]]*):(\d+)$/.exec(value);
  if (match === null) return '';
  const [, host = '', port = ''] = match;
  if (host.startsWith('[')) {
    if (!isIPv6(host.slice(1, -1))) return `${host} is no IPv6 address`;
  } else {
    const problem = hostProblem(host);
    if (problem !== undefined) return problem === '' ? 'the host is neither a name nor an address' : problem;
  }
  return port.length > 5 || Number(port) > 65_535
    ? `the port ${port.slice(0, 12)} is above 65535`
    : undefined;
}

/**
 * RFC 1123 §2.1: letters, digits and hyphens; a name like an IPv4 address must be a valid one. A
 * wildcard only as first label.
 */
function hostProblem(value: string): string | undefined {
  if (isIP(value) !== 0) return undefined;
  if (/^[\d.]+$/.test(value)) return isIPv4(value) ? undefined : `${value.slice(0, 40)} is no IPv4 address`;
  const labels = value.replace(/^\*\./, '').replace(/\.$/, '').split('.');
  const well = labels.every((label) => /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/.test(label));
  return well && value.length <= 253 ? undefined : '';
}

function urlProblem(value: string): string | undefined {
  if (!URL.canParse(value)) return '';
  const { protocol, username, password, search, hash } = new URL(value);
  if (protocol !== 'https:' && protocol !== 'http:') return `its scheme is ${protocol}`;
  return username + password + search + hash === '' ? undefined : 'it holds more than an address';
}

/** The URL of a proxy may have a name and a password. */
function proxyProblem(value: string): string | undefined {
  if (!URL.canParse(value)) return '';
  const { protocol } = new URL(value);
  return protocol === 'https:' || protocol === 'http:' ? undefined : `its scheme is ${protocol}`;
}

/** As browsers send it (RFC 6454 §6.1): anything else never equals an Origin. */
function originProblem(value: string): string | undefined {
  if (value === '*' || value === 'null') return undefined;
  if (!URL.canParse(value)) return '';
  const { origin } = new URL(value);
  if (origin === 'null') return /^[a-z][a-z0-9+.-]*:\/\/[^/?#\s]+$/.test(value) ? undefined : '';
  return origin === value ? undefined : `its origin is ${origin}`;
}

function idProblem(value: string): string | undefined {
  return modelNameProblem(value);
}

function tokenProblem(value: string): string | undefined {
  return /^[\x21-\x7e]+$/.test(value) ? undefined : 'a header can only carry visible ASCII';
}

function keyProblem(value: string): string | undefined {
  if (value.startsWith('sha256:'))
    return KEY_DIGEST.test(value) ? undefined : 'what follows sha256: is no digest';
  return tokenProblem(value);
}

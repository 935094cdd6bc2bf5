// The page as an answer: its headers, from the policy inside of it. Server and local proxy send the same.

import { sha256 } from '@noble/hashes/sha2.js';
import { fromUtf8, toHex } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';

/** The built page. */
export interface ConsolePage {
  readonly html: Uint8Array;
  /** SHA-256 of its bytes, hex: in the image manifest and in the measured root. */
  readonly sha256: string;
  readonly headers: Readonly<Record<string, string>>;
}

const POLICY = /<meta http-equiv="Content-Security-Policy" content="([^"]+)" ?\/?>/;

/**
 * The bytes of a built page with the headers it is served with.
 * @throws AttestationError `malformed_evidence` for bytes that have no content security policy inside
 */
export function consolePage(html: Uint8Array): ConsolePage {
  const policy = POLICY.exec(fromUtf8(html, 'console'))?.[1];
  if (policy === undefined)
    throw malformed('malformed_evidence', 'the console has no content security policy');
  return {
    html,
    sha256: toHex(sha256(html)),
    headers: {
      'content-type': 'text/html; charset=utf-8',
      // A policy of a `meta` element cannot say the last part (CSP 3, §3.3).
      'content-security-policy': `${policy}; frame-ancestors 'none'`,
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-resource-policy': 'same-origin',
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'permissions-policy': NO_PERMISSIONS,
      'cache-control': 'no-store',
    },
  };
}

const NO_PERMISSIONS = [
  'accelerometer',
  'autoplay',
  'bluetooth',
  'browsing-topics',
  'camera',
  'display-capture',
  'encrypted-media',
  'fullscreen',
  'geolocation',
  'gyroscope',
  'hid',
  'magnetometer',
  'microphone',
  'midi',
  'payment',
  'picture-in-picture',
  'publickey-credentials-get',
  'screen-wake-lock',
  'serial',
  'usb',
  'web-share',
  'xr-spatial-tracking',
]
  .map((name) => `${name}=()`)
  .join(', ');

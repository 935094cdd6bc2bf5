// Who is asking: a bearer key (RFC 6750 §2.1) → Principal. Keys are known by their SHA-256 alone; the comparison touches
// every configured key and takes the same time for each (crypto.timingSafeEqual), so that it tells nothing of them.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { ApiError } from '../errors.ts';
import { peerOf } from './address.ts';
import type { KeyLimits, ServerConfig } from './deps.ts';

export interface Principal {
  /** What limits are counted under: a key, or a peer address. Never written anywhere. */
  readonly bucket: string;
  /** The operator's name for the key; null without a known key. */
  readonly name: string | null;
  readonly admin: boolean;
  readonly models: ReadonlySet<string> | null;
  readonly limits: KeyLimits;
  /** Opaque and stable per key while the process lives: prompt-cache reuse stays within one scope. */
  readonly cacheScope: string;
}

/** What a route demands. `open` routes never look at the key. */
export type Access = 'open' | 'key' | 'admin';

/** Longer headers are not keys; they are refused before they are hashed. */
const MAX_KEY_LENGTH = 4096;

export function createAuth(
  config: ServerConfig,
  salt: Uint8Array,
): (authorization: string | undefined, peer: string, access: Access) => Principal {
  const known = config.auth.keys.map((key) => ({
    key,
    digest: Buffer.from(key.sha256, 'hex'),
    models: key.models === null ? null : new Set(key.models),
  }));
  const scopeOf = (of: string): string => createHmac('sha256', salt).update(of).digest('base64url');

  const matching = (presented: string): (typeof known)[number] | undefined => {
    const digest = createHash('sha256').update(presented).digest();
    let found: (typeof known)[number] | undefined;
    for (const each of known) {
      if (each.digest.length === digest.length && timingSafeEqual(each.digest, digest)) found = each;
    }
    return found;
  };

  return (authorization, peer, access) => {
    const presented = bearer(authorization);
    const match = presented === undefined || known.length === 0 || access === 'open' ? undefined : matching(presented);
    if (access === 'admin' && !config.auth.adminEnabled) {
      throw new ApiError(403, 'admin_disabled', 'the admin routes are switched off on this server');
    }
    if (match === undefined) {
      if (access !== 'open' && config.auth.required) {
        throw new ApiError(
          401,
          'invalid_api_key',
          presented === undefined ? 'no API key given, expected `Authorization: Bearer …`' : 'the API key is not known',
        );
      }
      // With keys configured but not required, admin work still takes an admin key.
      if (access === 'admin' && known.some((each) => each.key.admin)) {
        throw new ApiError(presented === undefined ? 401 : 403, 'admin_key_required', 'this route takes an admin key');
      }
      return {
        bucket: `peer ${peerOf(peer)}`,
        name: null,
        admin: access === 'admin',
        models: null,
        limits: config.anonymous,
        cacheScope: scopeOf(`anonymous ${presented ?? ''}`),
      };
    }
    if (access === 'admin' && !match.key.admin) throw new ApiError(403, 'admin_key_required', 'this route takes an admin key');
    return {
      bucket: `key ${match.key.sha256}`,
      name: match.key.name,
      admin: match.key.admin,
      models: match.models,
      limits: match.key.limits,
      cacheScope: scopeOf(`key ${match.key.sha256}`),
    };
  };
}

function bearer(authorization: string | undefined): string | undefined {
  if (authorization === undefined || authorization.length > MAX_KEY_LENGTH) return undefined;
  const match = /^bearer +(\S+) *$/i.exec(authorization);
  return match?.[1];
}

/** 403 unless the principal's key may use the model; says the same of models that do not exist. */
export function checkModelAllowed(principal: Principal, modelId: string): void {
  if (principal.models !== null && !principal.models.has(modelId)) {
    throw new ApiError(403, 'model_not_allowed', 'this API key may not use that model', { param: 'model' });
  }
}

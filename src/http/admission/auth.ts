// The caller of a request: a bearer key (RFC 6750 §2.1) → Principal. Keys are known by their SHA-256 alone;
// the comparison touches every configured key and takes the same time for each (crypto.timingSafeEqual), so
// that its duration reveals no key.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { ApiError } from '../../base/errors.ts';
import { peerOf } from '../address.ts';
import type { KeyLimits, ServerConfig } from '../deps.ts';

export interface Principal {
  /** The key limits are counted under: an API key, or a peer address. Never written anywhere. */
  readonly bucket: string;
  /** The operator's name for the key; null without a known key. */
  readonly name: string | null;
  readonly admin: boolean;
  readonly models: ReadonlySet<string> | null;
  readonly limits: KeyLimits;
  /** Opaque and stable per key while the process lives: prompt-cache reuse stays within one scope. */
  readonly cacheScope: string;
  /**
   * By which stored files and batches are its own, also after a restart: `key <sha256>`, or without a known key
   * `anonymous` and the digest of the bearer key it sent.
   */
  readonly owner: string;
}

/**
 * The access a route demands. `open` routes ignore the key; `operator` ones need an admin key where any keys
 * are configured, whether or not the admin routes are switched on.
 */
export type Access = 'open' | 'key' | 'admin' | 'operator';

/** A longer header is not a key; it is refused before hashing. */
const MAX_KEY_LENGTH = 4096;

/** The sender of a request, before its rights are checked. */
export interface Caller {
  readonly principal: Principal;
  /** A known key; without one the principal stands for a peer address. */
  readonly known: boolean;
  /** It came with a bearer key, known or not. */
  readonly presented: boolean;
}

export interface Auth {
  identify(authorization: string | undefined, peer: string, access: Access): Caller;
  /** 401 or 403 unless the caller may use routes of that kind. */
  authorise(caller: Caller, access: Access): void;
  /** The caller that owns something stored; undefined when its key is no longer configured. */
  owned(owner: string): Principal | undefined;
}

export function createAuth(config: ServerConfig, salt: Uint8Array): Auth {
  const scopeOf = (of: string): string => createHmac('sha256', salt).update(of).digest('base64url');
  const keys = config.auth.keys.map((key) => ({
    digest: Buffer.from(key.sha256, 'hex'),
    admin: key.admin,
    principal: {
      bucket: `key ${key.sha256}`,
      name: key.name,
      admin: key.admin,
      models: key.models === null ? null : new Set(key.models),
      limits: key.limits,
      cacheScope: scopeOf(`key ${key.sha256}`),
      owner: `key ${key.sha256}`,
    } satisfies Principal,
  }));
  const withoutKey = scopeOf('anonymous ');

  const matching = (presented: string): (typeof keys)[number] | undefined => {
    const digest = sha256(presented);
    let found: (typeof keys)[number] | undefined;
    for (const each of keys) {
      if (each.digest.length === digest.length && timingSafeEqual(each.digest, digest)) found = each;
    }
    return found;
  };

  return {
    identify(authorization, peer, access) {
      const bearer = access === 'open' ? undefined : bearerOf(authorization);
      const match = bearer === undefined || keys.length === 0 ? undefined : matching(bearer);
      const presented = bearer !== undefined;
      if (match === undefined) {
        const principal: Principal = {
          bucket: `peer ${peerOf(peer)}`,
          name: null,
          admin: access === 'admin',
          models: null,
          limits: config.anonymous,
          cacheScope: bearer === undefined ? withoutKey : scopeOf(`anonymous ${bearer}`),
          get owner() {
            return bearer === undefined ? ANONYMOUS : `${ANONYMOUS} ${sha256(bearer).toString('hex')}`;
          },
        };
        return { principal, known: false, presented };
      }
      return { principal: match.principal, known: true, presented };
    },
    owned(owner) {
      const key = keys.find(({ principal }) => principal.owner === owner);
      if (key !== undefined) return key.principal;
      if (config.auth.required || !owner.startsWith(ANONYMOUS)) return undefined;
      return {
        bucket: owner,
        name: null,
        admin: false,
        models: null,
        limits: config.anonymous,
        cacheScope: scopeOf(owner),
        owner,
      };
    },
    authorise({ principal, known, presented }, access) {
      if (access === 'open') return;
      if (access === 'admin' && !config.auth.adminEnabled) {
        throw new ApiError('admin_disabled', 'the admin routes are switched off on this server');
      }
      if (!known && config.auth.required) {
        throw new ApiError(
          'invalid_api_key',
          presented ? 'the API key is not known' : 'no API key given, expected `Authorization: Bearer …`',
        );
      }
      // With keys configured but not required, admin work still needs an admin key.
      const needsAdmin =
        access === 'operator'
          ? keys.length > 0
          : access === 'admin' && (known || keys.some((key) => key.admin));
      if (needsAdmin && !(known && principal.admin)) {
        throw new ApiError('admin_key_required', 'this route takes an admin key', {
          status: presented ? 403 : 401,
        });
      }
    },
  };
}

const ANONYMOUS = 'anonymous';

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function bearerOf(authorization: string | undefined): string | undefined {
  if (authorization === undefined || authorization.length > MAX_KEY_LENGTH) return undefined;
  const match = /^bearer +(\S+) *$/i.exec(authorization);
  return match?.[1];
}

/** 403 unless the principal's key may use the model; the same answer for models that do not exist. */
export function checkModelAllowed(principal: Principal, modelId: string): void {
  if (principal.models !== null && !principal.models.has(modelId)) {
    throw new ApiError('model_not_allowed', 'this API key may not use that model', { param: 'model' });
  }
}

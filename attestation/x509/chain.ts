// A path from a leaf to a root that is trusted by the SHA-256 of its DER (RFC 5280 §6.1), through
// certificates given in any order. A root that is carried along is no anchor for being there. Every link is
// checked: names, CA rights, path lengths, validity, signature. Returns what is wrong in words.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Certificate } from './certificate.ts';
import {
  caProblem,
  commonWindow,
  issuanceProblem,
  nameText,
  validityProblem,
  type TimeWindow,
} from './path.ts';
import { type KeyCache, verifySignedBy } from './signature.ts';

/** More links than any vendor's chain has. */
const MAX_LINKS = 8;

export interface ChainFinding {
  /** Undefined: the leaf is issued by a trusted root, and all signatures on the way hold. */
  readonly problem: string | undefined;
  /** Of the certificates on the path, the first that is not valid now; judged apart from the rest. */
  readonly expired: string | undefined;
  readonly window: TimeWindow;
}

export interface ChainOptions {
  readonly others: readonly Certificate[];
  /** SHA-256 of DER, hex. */
  readonly trusted: readonly string[];
  readonly now: Date;
  readonly keys?: KeyCache | undefined;
}

/** Follows issuers from the leaf until a trusted root. */
export async function verifyChainTo(leaf: Certificate, options: ChainOptions): Promise<ChainFinding> {
  const path = [leaf];
  const finding = (problem: string | undefined): ChainFinding => ({
    problem,
    expired: expiredOf(path, options.now),
    window: commonWindow(path, []),
  });
  for (let at: Certificate = leaf; ;) {
    if (options.trusted.includes(toHex(sha256(at.raw)))) return finding(undefined);
    if (path.length > MAX_LINKS) return finding(`path is longer than ${MAX_LINKS} certificates`);
    const issuer = options.others.find(
      (candidate) => !path.includes(candidate) && issuanceProblem(at, candidate) === undefined,
    );
    if (issuer === undefined)
      return finding(
        equalBytes(at.issuer.raw, at.subject.raw)
          ? `root ${nameText(at.subject)} is not a pinned one`
          : `issuer ${nameText(at.issuer)} of ${nameText(at.subject)} is not there`,
      );
    const ca = caProblem(issuer, { certificates: true }, path.length - 1);
    if (ca !== undefined) return finding(`${nameText(issuer.subject)}: ${ca}`);
    // oxlint-disable-next-line no-await-in-loop -- the next link depends on this one
    if (!(await verifySignedBy(at, issuer.publicKey, options.keys)))
      return finding(`${nameText(at.subject)} is not signed by ${nameText(issuer.subject)}`);
    path.push(issuer);
    at = issuer;
  }
}

function expiredOf(path: readonly Certificate[], now: Date): string | undefined {
  for (const certificate of path) {
    const problem = validityProblem(certificate, now);
    if (problem !== undefined) return `${nameText(certificate.subject)}: ${problem}`;
  }
  return undefined;
}

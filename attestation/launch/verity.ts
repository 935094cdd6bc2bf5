// The root hash of a dm-verity image (linux Documentation/admin-guide/device-mapper/verity.rst): format 1,
// SHA-256, 4096-byte blocks, no superblock, the tree behind the data. The hash is computed over the data; the
// tree in the file is not read.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, fromHex, toHex } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';

/** Public constant of our images: SHA-256("assay dm-verity salt, version 1"). */
export const VERITY_SALT = '298092ccf543c4b65f3b5ac76296c75556e29785ec6def2f21f556830dfb443b';

const BLOCK_BYTES = 4096;
const DIGEST_BYTES = 32;

/**
 * Hex root hash over the first `blocks` blocks of `image`. About 200 MB a second.
 * @example const rootHash = verityRootHash(image, image.length / 4096);
 */
export function verityRootHash(image: Uint8Array, blocks: number, salt: string = VERITY_SALT): string {
  if (!Number.isSafeInteger(blocks) || blocks < 2 || blocks * BLOCK_BYTES > image.length) {
    throw malformed(
      'malformed_manifest',
      `root image of ${image.length} bytes does not hold ${blocks} blocks`,
    );
  }
  const salted = sha256.create().update(fromHex(salt));
  const hash = (block: Uint8Array): Uint8Array => salted.clone().update(block).digest();
  let level: Uint8Array[] = Array.from({ length: blocks }, (_, index) =>
    hash(image.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)),
  );
  while (level.length > 1) {
    const nodes = padded(concatBytes(...level));
    level = Array.from({ length: nodes.length / BLOCK_BYTES }, (_, index) =>
      hash(nodes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)),
    );
  }
  return toHex(level[0] ?? new Uint8Array(DIGEST_BYTES));
}

function padded(bytes: Uint8Array): Uint8Array {
  const blocks = new Uint8Array(Math.ceil(bytes.length / BLOCK_BYTES) * BLOCK_BYTES);
  blocks.set(bytes);
  return blocks;
}

// The `minimumTcb` of a policy: least security versions by product, as JSON has them.

import { shapeReaders } from '../encoding/json.ts';
import type { MinimumTcbs } from '../snp/policy.ts';
import { PRODUCTS } from '../snp/tcb.ts';
import { malformed } from '../transcript/errors.ts';

const read = shapeReaders('malformed_policy');

/** @throws malformed_policy */
export function readMinimumTcb(value: unknown): MinimumTcbs {
  const object = read.object(value, 'minimumTcb', [], PRODUCTS);
  const products = PRODUCTS.filter((product) => object[product] !== undefined);
  if (products.length === 0) throw malformed('malformed_policy', 'minimumTcb is empty');
  return Object.fromEntries(
    products.map((product) => {
      const components = ['bootloader', 'tee', 'snp', 'microcode', ...(product === 'Turin' ? ['fmc'] : [])];
      const minimum = read.object(object[product], `minimumTcb.${product}`, [], components);
      const given = components.filter((component) => minimum[component] !== undefined);
      if (given.length === 0) throw malformed('malformed_policy', `minimumTcb.${product} is empty`);
      return [product, Object.fromEntries(given.map((component) => [component, read.integer(minimum[component], `minimumTcb.${product}.${component}`, 0, 255)]))]; // prettier-ignore
    }),
  );
}

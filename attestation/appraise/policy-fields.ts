// Two fields of a policy: `minimumTcb`, least security versions by product, and `models`, id → SHA-256.

import { shapeReaders } from '../encoding/json.ts';
import type { MinimumTcbs } from '../snp/policy.ts';
import { PRODUCTS } from '../snp/tcb.ts';
import { malformed } from '../transcript/errors.ts';
import { hex } from './policy-references.ts';

const read = shapeReaders('malformed_policy');
const LIST_MAX = 1024;

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

/** @throws malformed_policy */
export function readModels(value: unknown): ReadonlyMap<string, string> {
  const ids = typeof value === 'object' && value !== null ? Object.keys(value) : [];
  const object = read.object(value, 'models', [], ids);
  if (ids.length === 0 || ids.length > LIST_MAX)
    throw malformed('malformed_policy', `models has ${ids.length} entries, expected 1 to ${LIST_MAX}`);
  if (ids.some((id) => id === '' || id === '*'))
    throw malformed('malformed_policy', 'models has an entry for "" or "*", which no model can have as id');
  return new Map(ids.map((id) => [id, hex(object[id], `models[${JSON.stringify(id)}]`, 32)]));
}

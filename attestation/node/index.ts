// The entry of `@assay/attestation/node`: a fetch over attested TLS, the local proxy, and what both are made
// of.

export { type AttestedConnection, connectAttested, type ConnectOptions } from './connect.ts';
export { importBundle } from './endorsements/bundle-import.ts';
export { bundleStore, exportBundle } from './endorsements/bundle.ts';
export {
  createEndorsements,
  type EndorsementOptions,
  type Endorsements,
  proxyFromEnvironment,
} from './endorsements/endorsements.ts';
export { type EndorsementStore, folderStore, memoryStore } from './endorsements/store.ts';
export { attestedFetch, type AttestedFetch } from './fetch.ts';
export { type AttestedFetchOptions, AttestedPool, type PoolOptions } from './pool.ts';
export type { KeptAnswer, ReceiptEvidence, ReceiptOptions } from './receipts/options.ts';
export type { ReceiptRecord, ReceiptSettings, ReceiptVerdict } from '../client/receipt-options.ts';
export { receiptOf } from '../client/checked-answer.ts';
export { startProxy, type ProxyOptions, type RunningProxy } from './proxy/proxy.ts';

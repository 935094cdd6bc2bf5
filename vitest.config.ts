// One configuration for every test. Sources are loaded as TypeScript; what runs as a separate process (server, engine
// child, command lines) runs from dist/, which `make test` builds first.

import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

function at(path: string): string {
  return fileURLToPath(new URL(path, import.meta.url));
}

export default defineConfig({
  resolve: {
    alias: [
      { find: /^@assay\/attestation$/, replacement: at('./attestation/index.ts') },
      { find: /^@assay\/attestation\/codes$/, replacement: at('./attestation/transcript/codes.ts') },
      { find: /^@assay\/attestation\/console$/, replacement: at('./attestation/node/console-page.ts') },
      {
        find: /^@assay\/attestation\/endorsements$/,
        replacement: at('./attestation/node/endorsements/endorsements.ts'),
      },
      { find: /^@assay\/attestation\/explain$/, replacement: at('./attestation/appraise/explain.ts') },
      { find: /^@assay\/attestation\/issue$/, replacement: at('./attestation/protocol/issue.ts') },
      { find: /^@assay\/attestation\/job-record$/, replacement: at('./attestation/receipts/job.ts') },
      {
        find: /^@assay\/attestation\/job-verdict$/,
        replacement: at('./attestation/appraise/job-record.ts'),
      },
      {
        find: /^@assay\/attestation\/receipt-verdict$/,
        replacement: at('./attestation/appraise/receipt-verdict.ts'),
      },
      { find: /^@assay\/attestation\/launch$/, replacement: at('./attestation/launch/index.ts') },
      { find: /^@assay\/attestation\/node$/, replacement: at('./attestation/node/index.ts') },
      {
        find: /^@assay\/attestation\/policy-lint$/,
        replacement: at('./attestation/appraise/policy-lint.ts'),
      },
      { find: /^@assay\/attestation\/receipt$/, replacement: at('./attestation/receipts/index.ts') },
      { find: /^@assay\/attestation\/sealed$/, replacement: at('./attestation/client/sealed-fetch.ts') },
      {
        find: /^@assay\/attestation\/sealed-envelope$/,
        replacement: at('./attestation/sealed/envelope.ts'),
      },
      { find: /^@assay\/attestation\/simulated$/, replacement: at('./attestation/simulated/hierarchy.ts') },
      { find: /^@assay\/attestation\/vtpm$/, replacement: at('./attestation/appraise/clouds.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/fixtures/global-setup.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 180_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000 } },
    reporters: ['default', './test/fixtures/closing-line.ts'],
  },
});

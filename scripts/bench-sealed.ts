// `npx tsx scripts/bench-sealed.ts`: what sealed bodies cost (docs/sealed.md [B27]). Sealing and opening one
// request and its answer beside one TLS handshake, both ends of each in this process; then streams and first
// tokens of the whole server, sealed and not, in turn. Prints tables and has no assertions.

import { once } from 'node:events';
import { connect, createServer } from 'node:tls';
import type { AddressInfo } from 'node:net';
import { fetch } from 'undici';
import { createTestCertificate } from '../test/fixtures/attestation/x509-certificates.ts';

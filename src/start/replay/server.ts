// A server for one receipt: the routes of this build over the one model that answered, on a port of loopback
// that only this process has the key of. Its receipts are made with the salt of the one that is replayed, so
// that they can be compared field by field, and are signed by no key.

import { createHash, randomBytes } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import type { FinalReceipt, Receipt } from '@assay/attestation/receipt';
import { isRecord } from '../../base/shape.ts';
import type { Log } from '../../base/log.ts';
import { allRoutes } from '../../api/routes.ts';
import type { Config } from '../../config/read.ts';
import type { Engine } from '../../engine/seam/engine.ts';
import type { ReceiptService, ServerConfig } from '../../http/deps.ts';
import { createServer } from '../../http/server.ts';
import type { ModelService } from '../../models/seam.ts';
import { AnswerReceipt, type ReceiptSigner } from '../../receipts/answer.ts';
import { Chains } from '../../receipts/chains.ts';
import { serverConfig } from '../http.ts';

/** All routes that compute take a POST; of others no receipt is made. */
const PATH = /^\/[!-~]*$/;

export interface ReplayServer {
  /** Body of the last answer. */
  readonly lastAnswer: Uint8Array;
  /** Sends the request and returns the receipt of its answer; one at a time. Throws RequestRefused. */
  answer(replayed: ReplayedRequest): Promise<FinalReceipt>;
  close(): Promise<void>;
}

export interface ReplayedRequest {
  readonly models: ModelService<Engine>;
  readonly receipt: FinalReceipt;
  readonly salt: Uint8Array;
  readonly request: Uint8Array;
}

export interface ReplayServerOptions {
  readonly config: Config;
  readonly log: Log;
  readonly version: string;
  readonly build: ReceiptSigner['build'];
}

/** The request was refused before it was computed, or its answer broke off. */
export class RequestRefused extends Error {
  override readonly name = 'RequestRefused';
  readonly code: string;

  constructor(code: string) {
    super(`the request was not computed here: ${code}`);
    this.code = code;
  }
}

export async function startReplayServer(options: ReplayServerOptions): Promise<ReplayServer> {
  const { build } = options;
  let current: ReplayedRequest | undefined;
  const replayed = (): ReplayedRequest => {
    if (current === undefined) throw new RequestRefused('not_asked');
    return current;
  };
  const key = randomBytes(32).toString('hex');
  let made: FinalReceipt | undefined;
  const signer: ReceiptSigner = {
    chains: new Chains(),
    publicKey: new Uint8Array(32),
    build,
    // A template is told the time of the receipt.
    now: () => replayed().receipt.receivedAt,
    auditHead: () => undefined,
    seal(content: Receipt) {
      if (content.kind === 'final') made = content;
      return new Uint8Array(0);
    },
    keep: () => undefined,
  };
  const receipts: ReceiptService = {
    open: (asked) =>
      new AnswerReceipt(signer, { ...asked, ask: { mode: null, nonce: undefined } }, replayed().salt),
    kept: () => undefined,
  };
  const server = await createServer(
    {
      config: onLoopback(serverConfig(options.config), key),
      tls: null,
      models: modelsOf(() => replayed().models),
      attester: null,
      receipts,
      log: options.log,
      version: options.version,
    },
    (context) => allRoutes(context).filter(({ computes }) => computes === true),
  );
  const { port } = await server.listen();
  let lastAnswer = new Uint8Array(0);
  return {
    get lastAnswer() {
      return lastAnswer;
    },
    async answer(asked) {
      made = undefined;
      current = asked;
      const { receipt, request } = asked;
      const { method, path } = receipt.request;
      if (method !== 'POST' || !PATH.test(path)) throw new RequestRefused('no_such_route');
      const { status, body } = await sent({ port, method, path, headers: headersOf(request, key) }, request);
      lastAnswer = new Uint8Array(body);
      // Written by the server meanwhile.
      const receiptOf = made as FinalReceipt | undefined;
      if (receiptOf === undefined || (status >= 400 && receipt.outcome.status < 400))
        throw new RequestRefused(codeIn(body) ?? `status ${status}`);
      return receiptOf;
    },
    close: () => server.close({ drainMs: 0 }),
  };
}

/** The models of the request that is replayed. */
function modelsOf(models: () => ModelService<Engine>): ModelService<Engine> {
  return {
    list: () => models().list(),
    get: (id) => models().get(id),
    acquire: (id, options) => models().acquire(id, options),
    load: (id, signal, options) => models().load(id, signal, options),
    unload: (id) => models().unload(id),
    register: (request, signal) => models().register(request, signal),
    addAdapter: (request, signal) => models().addAdapter(request, signal),
    removeAdapter: (id) => models().removeAdapter(id),
    remove: (id) => models().remove(id),
    pull: (request, signal) => models().pull(request, signal),
    pullStatus: (name) => models().pullStatus(name),
    cancelPull: (name) => models().cancelPull(name),
  };
}

/** One caller, without limits that would refuse what the other server took. */
function onLoopback(config: ServerConfig, key: string): ServerConfig {
  const sha256 = createHash('sha256').update(key).digest('hex');
  const limits = { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0 };
  return {
    ...config,
    host: '127.0.0.1',
    port: 0,
    auth: {
      required: true,
      adminEnabled: false,
      keys: [{ name: 'replay', sha256, admin: false, models: null, limits }],
    },
    corsOrigins: [],
    metrics: 'off',
    timeouts: { ...config.timeouts, requestMs: 0 },
    streamBatchMs: 0,
  };
}

function headersOf(body: Uint8Array, key: string): Readonly<Record<string, string>> {
  const boundary = /^--([^\r\n]{1,200})\r?\n/.exec(
    Buffer.from(body.subarray(0, 256)).toString('latin1'),
  )?.[1];
  const type =
    boundary === undefined ? 'application/json' : `multipart/form-data; boundary=${JSON.stringify(boundary)}`;
  return { authorization: `Bearer ${key}`, 'content-type': type, 'anthropic-version': '2023-06-01' };
}

interface Sent {
  readonly port: number;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

function sent(
  { port, method, path, headers }: Sent,
  body: Uint8Array,
): Promise<{ readonly status: number; readonly body: Buffer }> {
  return new Promise((resolve, reject) => {
    const length = { 'content-length': body.length };
    const asked = httpRequest({ host: '127.0.0.1', port, method, path, headers: { ...headers, ...length } });
    asked.on('error', reject);
    asked.on('response', (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(pieces) }));
    });
    asked.end(body);
  });
}

/** The code of an error body: it quotes no text. */
function codeIn(body: Buffer): string | undefined {
  try {
    const json: unknown = JSON.parse(body.toString());
    const error = isRecord(json) ? json['error'] : undefined;
    const code = isRecord(error) ? (error['code'] ?? error['type']) : undefined;
    return typeof code === 'string' ? code : undefined;
  } catch {
    return undefined;
  }
}

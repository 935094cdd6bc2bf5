// Sends one object to the storage that the hub names: whole (`basic`) or in parts (`multipart`), and has
// the hub verify it. Parts that are there already are not sent again. Storage is another host: it never
// gets the token, and a refusal of it means that its signed address is over, so the hub is asked for new
// ones, a few times.

import { createHash } from 'node:crypto';
import { ApiError } from '../../base/errors.ts';
import type { WebResponse } from '../../models/pull/http.ts';
import { HubBusy, retryAfterMs } from '../../models/pull/hub.ts';
import type { MeasuredFile } from './files.ts';
import { MAX_UPLOAD_PARTS, type Journal, type PartPlan } from './journal.ts';
import { malformedAnswer, type HubSession, type LfsAction, type LfsObject } from './protocol.ts';

/** Times that the hub is asked for new addresses of one object. */
const MAX_RENEWALS = 3;
/** Headers of an action that are sent with the bytes; a hub cannot have others sent for it. */
const PASSED = /^(?:x-amz-[a-z0-9-]{1,64}|content-type|x-ms-blob-type|authorization)$/i;

export interface TransferOptions {
  readonly session: HubSession;
  readonly journal: Journal;
  /** Bytes that storage has taken. */
  readonly onBytes: (bytes: number) => void;
}

/** The address has expired, or storage takes no bytes under it. Final for the attempt, not for the object. */
class AddressOver extends ApiError {
  constructor() {
    super('hub_forbidden', 'the storage of the hub takes no bytes under its own addresses', {
      shouldRetry: false,
    });
  }
}

/** Uploads what the hub does not have. `object` is the hub's answer about `file`. */
export async function transfer(
  file: MeasuredFile,
  object: LfsObject,
  options: TransferOptions,
): Promise<void> {
  const { session, journal } = options;
  let offered = object;
  for (let renewals = 0; ; renewals++) {
    const upload = offered.actions?.upload;
    if (upload === undefined) return journal.forget(file.sha256);
    try {
      if (upload.header?.['chunk_size'] === undefined) await sendWhole(file, upload, options);
      else await sendParts(file, upload, options);
      const verify = offered.actions?.verify;
      if (verify !== undefined)
        await session.trying(() =>
          session.tell(addressOf(verify.href), { oid: file.sha256, size: file.size }),
        );
      return await journal.forget(file.sha256);
    } catch (error) {
      if (!(error instanceof AddressOver)) throw error;
      await journal.forget(file.sha256);
      if (renewals >= MAX_RENEWALS) throw error;
      offered = (await session.batch([file]))[0]!;
    }
  }
}

async function sendWhole(file: MeasuredFile, upload: LfsAction, options: TransferOptions): Promise<void> {
  const { session } = options;
  await session.trying(async () => {
    const hash = createHash('sha256');
    const body = async function* body(): AsyncGenerator<Uint8Array> {
      for await (const chunk of file.read(0, file.size)) {
        hash.update(chunk);
        yield chunk;
      }
      // The last check before the server has a whole body: it then cannot take other bytes for these.
      if (hash.digest('hex') !== file.sha256) throw changed();
    };
    await put(session, upload, { body: body(), length: file.size });
  });
  options.onBytes(file.size);
}

async function sendParts(file: MeasuredFile, upload: LfsAction, options: TransferOptions): Promise<void> {
  const { session, journal, onBytes } = options;
  const { plan, tags } = await planFor(file, upload, journal);
  const sent = new Map(tags);
  for (const [i, href] of plan.parts.entries()) {
    const from = i * plan.partBytes;
    const to = Math.min(file.size, from + plan.partBytes);
    if (!sent.has(i + 1)) {
      const tag = await session.trying(() => putPart(session, href, file, { from, to }));
      await journal.sent(file.sha256, i + 1, tag);
      sent.set(i + 1, tag);
    }
    onBytes(to - from);
  }
  const parts = plan.parts.map((_, i) => ({ partNumber: i + 1, etag: sent.get(i + 1) ?? '' }));
  await session.trying(() => complete(session, plan.completion, { oid: file.sha256, parts }));
}

/** The plan of a run before this one, else the one the hub offers now. */
async function planFor(
  file: MeasuredFile,
  upload: LfsAction,
  journal: Journal,
): Promise<{ readonly plan: PartPlan; readonly tags: ReadonlyMap<number, string> }> {
  const known = await journal.read(file.sha256);
  if (known !== undefined && known.plan.size === file.size && isWhole(known.plan)) return known;
  const plan = planOf(file, upload);
  await journal.begin(file.sha256, plan);
  return { plan, tags: new Map() };
}

function isWhole({ size, partBytes, parts }: PartPlan): boolean {
  return parts.length > 0 && parts.length === Math.ceil(size / partBytes);
}

/** Throws 502 hub_error where the parts offered do not make the file. */
export function planOf(file: Pick<MeasuredFile, 'size'>, { href, header = {} }: LfsAction): PartPlan {
  const partBytes = Number(header['chunk_size']);
  if (!Number.isSafeInteger(partBytes) || partBytes < 1)
    throw malformedAnswer('has no usable size of a part');
  const numbered = Object.entries(header)
    .filter(([key]) => /^\d{1,5}$/.test(key))
    .map(([key, url]) => ({ number: Number(key), url }))
    .toSorted((a, b) => a.number - b.number);
  const expected = Math.ceil(file.size / partBytes);
  const isComplete = numbered.every(({ number }, i) => number === i + 1);
  if (numbered.length !== expected || !isComplete || expected > MAX_UPLOAD_PARTS)
    throw malformedAnswer(`offers ${numbered.length} parts of ${partBytes} bytes for a file of ${file.size}`);
  const parts = numbered.map(({ url }) => url);
  for (const each of parts) addressOf(each);
  return { version: 1, size: file.size, partBytes, completion: href, parts };
}

async function putPart(
  session: HubSession,
  href: string,
  file: MeasuredFile,
  { from, to }: { readonly from: number; readonly to: number },
): Promise<string> {
  const response = await put(session, { href, header: {} }, { body: file.read(from, to), length: to - from });
  const tag = response.header('etag');
  if (tag === undefined || !/^[\x21-\x7e]{1,512}$/.test(tag))
    throw malformedAnswer('gives no tag for a part');
  return tag;
}

async function put(
  session: HubSession,
  { href, header = {} }: LfsAction,
  { body, length }: { readonly body: AsyncIterable<Uint8Array>; readonly length: number },
): Promise<WebResponse> {
  const { sender, signal } = session.options;
  const headers = Object.fromEntries(Object.entries(header).filter(([name]) => PASSED.test(name)));
  const response = await sender.send(addressOf(href), { method: 'PUT', headers, body, length, signal });
  response.discard();
  refuseStorage(response, session);
  return response;
}

async function complete(session: HubSession, href: string, body: object): Promise<void> {
  const url = addressOf(href);
  const { sender, signal } = session.options;
  const type = 'application/vnd.git-lfs+json';
  const response = await sender.send(url, {
    method: 'POST',
    headers: { 'content-type': type, accept: type },
    body: JSON.stringify(body),
    signal,
  });
  response.discard();
  refuseStorage(response, session);
}

function refuseStorage(response: WebResponse, session: HubSession): void {
  const { status } = response;
  if (status >= 200 && status < 300) return;
  if (status === 429 || status === 408 || status >= 500)
    throw new HubBusy(`the hub answers ${status}`, retryAfterMs(response, session.options.clock.now));
  // S3 says 403 of an address that has expired, and 404 of an upload that was given up.
  if (status === 403 || status === 404 || status === 410) throw new AddressOver();
  throw new ApiError('hub_error', `the storage of the hub answers ${status}`, { shouldRetry: false });
}

function addressOf(href: string): URL {
  if (!URL.canParse(href)) throw malformedAnswer('has an address that is none');
  return new URL(href);
}

function changed(): ApiError {
  return new ApiError('model_file_changed', 'a file changed while it was published', { shouldRetry: true });
}

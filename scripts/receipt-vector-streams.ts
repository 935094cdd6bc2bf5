// The vectors of streams: their bytes as they arrive, those that are handed on, and the code of a refusal.

import { commitment } from '../attestation/receipts/commit.ts';
import { encodeReceipt, receiptDigest } from '../attestation/receipts/receipt.ts';
import { CHECKPOINT, filled, FINAL, hexOf, SALT, sha256Of, signReceipt } from './receipt-fixture.ts';
import { EXPECTED_OF_VECTOR, finalReceiptOf, type StreamVector } from './receipt-vector-answers.ts';

interface Event {
  readonly name?: string;
  readonly data: string;
}

function eventText({ name, data }: Event): string {
  return name === undefined ? `data: ${data}\n\n` : `event: ${name}\ndata: ${data}\n\n`;
}

function transcriptOf(events: readonly Event[]): Uint8Array {
  return sha256Of(events.map(({ name = '', data }) => `${name}\n${data}\n`).join(''));
}

/** A comment as a server writes it, padded to a multiple of 256 bytes. */
function comment(words: string): string {
  const bare = `: ${words}\n\n`.length;
  return `: ${words}${' '.repeat((256 - (bare % 256)) % 256)}\n\n`;
}

const OPEN = comment(`assay-open ${hexOf(FINAL.id)} ${base64url(SALT)}`);

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url');
}

function receiptComment(receipt: Uint8Array): string {
  return comment(`assay-receipt ${base64url(receipt)}`);
}

const CHUNKS: readonly Event[] = [
  { data: '{"choices":[{"index":0,"delta":{"role":"assistant"}}]}' },
  { data: '{"choices":[{"index":0,"delta":{"content":"Bl"}}]}' },
  { data: '{"choices":[{"index":0,"delta":{"content":": assay-receipt ue."}}]}' },
  { data: '{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":1}}' },
];
const DONE = 'data: [DONE]\n\n';
const ERROR =
  '{"error":{"message":"the engine ended unexpectedly","type":"server_error","param":null,"code":"engine_crashed"}}';

interface Rolled {
  readonly stream: string;
  readonly parts: readonly string[];
  readonly checkpoints: readonly Uint8Array[];
}

/** A stream with a checkpoint after each two events. */
function rolling(): Rolled {
  const checkpoints: Uint8Array[] = [];
  const parts: string[] = [OPEN];
  for (const [i, event] of CHUNKS.entries()) {
    parts.push(eventText(event));
    if (i % 2 === 0) continue;
    const before = checkpoints.at(-1);
    const receipt = encodeReceipt(
      {
        ...CHECKPOINT,
        seq: checkpoints.length,
        prev: before === undefined ? filled(0) : receiptDigest(before),
        outcome: {
          ...CHECKPOINT.outcome,
          transcript: commitment(SALT, 'transcript', transcriptOf(CHUNKS.slice(0, i + 1))),
          events: i + 1,
        },
      },
      signReceipt,
    );
    checkpoints.push(receipt);
    parts.push(receiptComment(receipt));
  }
  const last = checkpoints.at(-1);
  const final = finalReceiptOf(transcriptOf(CHUNKS), CHUNKS.length, {
    lastCheckpoint: last === undefined ? undefined : receiptDigest(last),
  });
  parts.push(receiptComment(final), DONE);
  return { stream: parts.join(''), parts, checkpoints };
}

const TEXTS = CHUNKS.map(eventText);
const [ROLE = '', FIRST = '', SECOND = '', USAGE = ''] = TEXTS;
const BODY = TEXTS.join('');
const LAST = receiptComment(finalReceiptOf(transcriptOf(CHUNKS), CHUNKS.length));
const GOOD = `${OPEN}${BODY}${LAST}${DONE}`;
const FAILED = finalReceiptOf(transcriptOf(CHUNKS.slice(0, 3)), 3, {
  outcome: { ...FINAL.outcome, end: 'error', errorCode: 'engine_crashed' },
});
const OPENING = `${OPEN}${ROLE}${FIRST}${SECOND}`;
const ROLLED = rolling();
const [, R0 = '', R1 = '', C0 = '', R2 = '', R3 = '', C1 = '', END = ''] = ROLLED.parts;
const RESPONSES: readonly Event[] = [
  { name: 'response.created', data: '{"type":"response.created","response":{"usage":null}}' },
  {
    name: 'response.completed',
    data: '{"type":"response.completed","response":{"usage":{"input_tokens":12,"output_tokens":1}}}',
  },
];
const [CREATED = '', COMPLETED = ''] = RESPONSES.map(eventText);
const RESPONSES_LAST = receiptComment(finalReceiptOf(transcriptOf(RESPONSES), 2));
const CRLF = GOOD.replaceAll('\n', '\r\n');

function row(name: string, stream: string, passed: string, code: string | null = null): StreamVector {
  return { name, expected: EXPECTED_OF_VECTOR, stream, passed, code };
}

export function streamVectors(): readonly StreamVector[] {
  return [...acceptedStreams(), ...cutStreams(), ...otherStreams(), ...endings()];
}

function acceptedStreams(): readonly StreamVector[] {
  return [
    row('a stream', GOOD, `${BODY}${DONE}`),
    row('lines that end with CR LF', CRLF, `${BODY}${DONE}`.replaceAll('\n', '\r\n')),
    row('lines that end with CR', GOOD.replaceAll('\n', '\r'), `${BODY}${DONE}`.replaceAll('\n', '\r')),
    row(
      'comments of others',
      `: hello\n\n${OPEN}${ROLE}: keep-alive\n\n${FIRST}${SECOND}${USAGE}${LAST}${DONE}`,
      `: hello\n\n${ROLE}: keep-alive\n\n${FIRST}${SECOND}${USAGE}${DONE}`,
    ),
    row(
      'with the ids of tokens',
      `${OPEN}${ROLE}${comment('assay-tokens AAAAAQ')}${FIRST}${SECOND}${USAGE}${LAST}${DONE}`,
      `${BODY}${DONE}`,
    ),
    row('rolling', ROLLED.stream, `${BODY}${DONE}`),
    row('responses', `${OPEN}${CREATED}${COMPLETED}${RESPONSES_LAST}`, `${CREATED}${COMPLETED}`),
    row(
      'an error',
      `${OPENING}${receiptComment(FAILED)}data: ${ERROR}\n\n`,
      `${ROLE}${FIRST}${SECOND}data: ${ERROR}\n\n`,
    ),
  ];
}

function cutStreams(): readonly StreamVector[] {
  return [
    row('an empty stream', '', '', 'receipt_missing'),
    row('no receipts', `${BODY}${DONE}`, '', 'receipt_missing'),
    row('the opening comment stripped', `${BODY}${LAST}${DONE}`, '', 'receipt_missing'),
    row('the last receipt stripped', `${OPEN}${BODY}${DONE}`, BODY, 'receipt_missing'),
    row('cut before the last receipt', `${OPEN}${BODY}`, BODY, 'receipt_truncated'),
    row('cut within the last receipt', `${OPEN}${BODY}${LAST.slice(0, 200)}`, BODY, 'receipt_truncated'),
    row('cut after the last receipt', `${OPEN}${BODY}${LAST}`, BODY, 'receipt_truncated'),
    row('cut within the last event', `${OPEN}${BODY}${LAST}data: [DO`, BODY, 'receipt_truncated'),
    row('responses cut before the receipt', `${OPEN}${CREATED}${COMPLETED}`, CREATED, 'receipt_truncated'),
    row(
      'an event dropped',
      `${OPEN}${ROLE}${FIRST}${USAGE}${LAST}${DONE}`,
      `${ROLE}${FIRST}${USAGE}`,
      'receipt_transcript',
    ),
    row(
      'an event twice',
      `${OPEN}${ROLE}${FIRST}${FIRST}${SECOND}${USAGE}${LAST}${DONE}`,
      `${ROLE}${FIRST}${FIRST}${SECOND}${USAGE}`,
      'receipt_transcript',
    ),
    row(
      'two events swapped',
      `${OPEN}${ROLE}${SECOND}${FIRST}${USAGE}${LAST}${DONE}`,
      `${ROLE}${SECOND}${FIRST}${USAGE}`,
      'receipt_transcript',
    ),
    row('an event edited', GOOD.replace('"Bl"', '"Gl"'), BODY.replace('"Bl"', '"Gl"'), 'receipt_transcript'),
    row(
      'an event named',
      GOOD.replace(FIRST, `event: x\n${FIRST}`),
      `${ROLE}event: x\n${FIRST}${SECOND}${USAGE}`,
      'receipt_transcript',
    ),
    row(
      'two events joined',
      GOOD.replace(`${ROLE}${FIRST}`, `${ROLE.trimEnd()}\n${FIRST}`),
      '',
      'receipt_transcript',
    ),
    row('an id added', GOOD.replace(FIRST, `id: 7\n${FIRST}`), ROLE, 'receipt_transcript'),
    row('a retry added', GOOD.replace(FIRST, `retry: 7\n${FIRST}`), ROLE, 'receipt_transcript'),
    row(
      'a receipt within an event',
      GOOD.replace(FIRST, `: assay-receipt AA\n${FIRST}`),
      ROLE,
      'receipt_transcript',
    ),
  ];
}

function otherStreams(): readonly StreamVector[] {
  return [
    row('an event after the last receipt', GOOD.replace(LAST, `${LAST}${FIRST}`), BODY, 'receipt_transcript'),
    row('an event after the end', `${GOOD}${FIRST}`, `${BODY}${DONE}`, 'receipt_transcript'),
    row('a second receipt after the last', GOOD.replace(LAST, `${LAST}${LAST}`), BODY, 'receipt_transcript'),
    row(
      'an end where the receipt says error',
      `${OPENING}${receiptComment(FAILED)}${DONE}`,
      `${ROLE}${FIRST}${SECOND}`,
      'receipt_transcript',
    ),
    row(
      'another error than the receipt says',
      `${OPENING}${receiptComment(FAILED)}data: ${ERROR.replace('engine_crashed', 'timeout')}\n\n`,
      `${ROLE}${FIRST}${SECOND}`,
      'receipt_transcript',
    ),
    row(
      'an error where the receipt says complete',
      `${OPEN}${BODY}${LAST}data: ${ERROR}\n\n`,
      BODY,
      'receipt_transcript',
    ),
    row('a checkpoint left out', [OPEN, R0, R1, R2, R3, C1, END, DONE].join(''), BODY, 'receipt_transcript'),
    row(
      'checkpoints swapped',
      [OPEN, R0, R1, C1, R2, R3, C0, END, DONE].join(''),
      `${ROLE}${FIRST}`,
      'receipt_transcript',
    ),
    row(
      'the last checkpoint left out',
      [OPEN, R0, R1, C0, R2, R3, END, DONE].join(''),
      BODY,
      'receipt_transcript',
    ),
    row('a checkpoint as the last', [OPEN, R0, R1, C0, R2, R3, C1, DONE].join(''), BODY, 'receipt_missing'),
    row(
      'a receipt of another answer',
      `${OPEN}${BODY}${receiptComment(finalReceiptOf(transcriptOf(CHUNKS), CHUNKS.length, { id: filled(9, 16) }))}${DONE}`,
      BODY,
      'receipt_transcript',
    ),
    row(
      'other usage',
      `${OPEN}${BODY}${receiptComment(finalReceiptOf(transcriptOf(CHUNKS), CHUNKS.length, { usage: { promptTokens: 12, completionTokens: 2, cachedTokens: 0 } }))}${DONE}`,
      BODY,
      'receipt_usage',
    ),
    row('no base64url', `${OPEN}${BODY}${comment('assay-receipt ####')}${DONE}`, BODY, 'receipt_malformed'),
    row('two openings', `${OPEN}${GOOD}`, '', 'receipt_malformed'),
    row('an unknown comment', `${OPEN}${comment('assay-else x')}`, '', 'receipt_malformed'),
  ];
}

const MESSAGE: readonly Event[] = [
  { name: 'message_start', data: '{"type":"message_start","message":{"usage":{"input_tokens":12}}}' },
  {
    name: 'content_block_delta',
    data: '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Blue."}}',
  },
];
const [MESSAGE_START = '', MESSAGE_DELTA = ''] = MESSAGE.map(eventText);
const MESSAGE_LAST = receiptComment(finalReceiptOf(transcriptOf(MESSAGE), 2));
const MESSAGE_TEXT = `${MESSAGE_START}${MESSAGE_DELTA}`;
const MESSAGES = `${OPEN}${MESSAGE_TEXT}${MESSAGE_LAST}`;
const STOP = eventText({ name: 'message_stop', data: '{"type":"message_stop"}' });
const MESSAGE_FAILED = receiptComment(
  finalReceiptOf(transcriptOf(MESSAGE), 2, {
    outcome: { ...FINAL.outcome, end: 'error', errorCode: 'engine_crashed' },
  }),
);
const MESSAGE_ERROR =
  '{"type":"error","error":{"type":"api_error","message":"the engine ended unexpectedly","details":{"error_code":"engine_crashed"}},"request_id":"r"}';
const MORE = '"delta":{"type":"text_delta","text":" More."}';

/** Readers go by the name of an event, by the type in its data, or by how the data begins. */
function endings(): readonly StreamVector[] {
  const padded = eventText({ name: 'message_stop', data: '{"type":"message_stop","obfuscation":"aaaa"}' });
  const behind = (name: string, event: Event): StreamVector =>
    row(name, `${MESSAGES}${eventText(event)}`, MESSAGE_TEXT, 'receipt_transcript');
  const behindError = (name: string, event: Event): StreamVector => {
    const stream = `${OPEN}${MESSAGE_TEXT}${MESSAGE_FAILED}${eventText(event)}`;
    return row(name, stream, MESSAGE_TEXT, 'receipt_transcript');
  };
  const before = (name: string, event: Event): StreamVector =>
    row(name, GOOD.replace(FIRST, eventText(event)), ROLE, 'receipt_transcript');
  const completed = RESPONSES.at(-1)?.data ?? '';
  const error = eventText({ name: 'error', data: MESSAGE_ERROR });
  return [
    row('messages', `${MESSAGES}${STOP}`, `${MESSAGE_TEXT}${STOP}`),
    row('messages, padded', `${MESSAGES}${padded}`, `${MESSAGE_TEXT}${padded}`),
    row('an error of messages', `${OPEN}${MESSAGE_TEXT}${MESSAGE_FAILED}${error}`, `${MESSAGE_TEXT}${error}`),
    behind('text behind the last receipt, by the type', {
      name: 'message_stop',
      data: `{"type":"content_block_delta","index":0,${MORE}}`,
    }),
    behind('text behind the last receipt, beside the type', {
      name: 'message_stop',
      data: `{"type":"message_stop",${MORE}}`,
    }),
    behind('an end of another name', { name: 'content_block_stop', data: '{"type":"message_stop"}' }),
    behind('an end that is no object', { name: 'message_stop', data: '[]' }),
    behind('the end of another dialect', { data: '[DONE]' }),
    row('the end of another dialect, unnamed', `${OPEN}${BODY}${LAST}${STOP}`, BODY, 'receipt_transcript'),
    behindError('an error of another dialect', { data: ERROR }),
    behind('an end with more behind it', { data: '[DONE] ' }),
    behind('a named end', { name: 'message_stop', data: '[DONE]' }),
    behindError('text for an error, by the type', {
      name: 'error',
      data: MESSAGE_ERROR.replace('"type":"error"', `"type":"content_block_delta",${MORE}`),
    }),
    behindError('text beside an error without a name', {
      data: `{"error":{"code":"engine_crashed"},"choices":[{"delta":{"content":"More."}}]}`,
    }),
    behindError('an error that is a text', { name: 'error', data: '{"type":"error","error":"crash"}' }),
    before('an end with more behind it, before the receipt', { data: '[DONE]x' }),
    before('a named end, before the receipt', { name: 'x', data: '[DONE]' }),
    before('an end by the type alone, before the receipt', {
      name: 'content_block_stop',
      data: '{"type":"\\u006dessage_stop"}',
    }),
    before('an unnamed end of responses, before the receipt', { data: completed }),
    before('an end of responses by another name, before the receipt', {
      name: 'response.in_progress',
      data: completed,
    }),
    before('an end of responses of another type, before the receipt', {
      name: 'response.completed',
      data: '{"type":"response.failed"}',
    }),
  ];
}

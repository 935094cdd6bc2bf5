// POST /v1/audio/transcriptions and /v1/audio/translations: a form with a sound file, which a model of type
// transcription hears in a confined child of its own. The file is held in memory, within the caller's share,
// and nowhere else; it is let go with the request.

import { ApiError } from '../../base/errors.ts';
import { refuse } from '../../base/shape.ts';
import type {
  TranscribedSegment,
  TranscribeEvent,
  TranscribeRequest,
} from '../../engine/seam/transcription.ts';
import { errorBody, notAForm } from '../../http/errors.ts';
import { formBoundary, readForm, type FormField } from '../../http/multipart.ts';
import { type Call, route, type Route } from '../../http/route.ts';
import { createPadding, WHOLE } from '../generation/padding.ts';
import { openStream, streamFailure } from '../generation/stream.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';
import { transcriptionAnswer } from '../response-schemas.ts';
import { secondsUsed, spokenText, transcriptOf, type AnswerForm, type Heard } from './answer.ts';
import {
  formSchema,
  readFields,
  transcriptionFields,
  translationFields,
  type TranscriptionFields,
  type TranslationFields,
} from './wire.ts';

/** The API's own bound of a file, and room for the rest of the form. */
const MAX_FILE_BYTES = 25 * 1024 * 1024;
const MAX_FORM_BYTES = MAX_FILE_BYTES + 256 * 1024;

const TYPES = { text: 'text/plain', srt: 'application/x-subrip', vtt: 'text/vtt' } as const;

export const transcriptions = audioRoute('transcribe', 'The text of a sound file.');
export const translations = audioRoute('translate', 'The English text of a sound file.');

function audioRoute(task: AnswerForm['task'], summary: string): Route {
  const shape = task === 'transcribe' ? transcriptionFields : translationFields;
  return route({
    method: 'POST',
    path: task === 'transcribe' ? '/v1/audio/transcriptions' : '/v1/audio/translations',
    access: 'key',
    limited: true,
    computes: true,
    summary,
    tag: 'Inference',
    form: { schema: formSchema(shape), maxBytes: () => MAX_FORM_BYTES },
    answer: transcriptionAnswer,
    streams: task === 'transcribe',
    errors: [
      'invalid_form',
      'invalid_audio',
      'audio_too_long',
      'transcription_unavailable',
      'model_not_found',
      'attestation_stale',
      'wrong_model_type',
      'engine_overloaded',
      'engine_crashed',
      'model_load_failed',
    ],
    async handle(call) {
      const { fields, audio } = await readAudio(call);
      const body: Partial<TranscriptionFields> & TranslationFields = readFields(shape, fields);
      const model = findModel(call, body.model, ['transcription']);
      reserveTokens(call);
      const form = formOf(body, task);
      return withEngine(call, model, body.keep_alive, async ({ transcribe }) => {
        if (transcribe === undefined)
          throw new ApiError('wrong_model_type', 'the model hears nothing', { param: 'model' });
        const request: TranscribeRequest = {
          audio,
          scope: call.exchange.principal?.cacheScope,
          translate: task === 'translate',
          language: body.language,
          prompt: body.prompt,
          temperature: form.temperature,
          fallback: body.temperature === undefined || body.temperature === 0,
          words: form.words,
        };
        const events = transcribe(request, call.exchange.signal);
        return body.stream === true ? stream(call, events) : answer(call, events, form);
      });
    },
  });
}

/** The fields, and the file as it was sent. */
async function readAudio({
  upload,
  request,
  exchange,
}: Call): Promise<{ readonly fields: readonly FormField[]; readonly audio: Uint8Array }> {
  const boundary = formBoundary(request.headers['content-type']);
  if (upload === null || boundary === undefined) throw notAForm();
  const pieces: Buffer[] = [];
  let bytes = 0;
  const { fields, file } = await readForm(upload, boundary, {
    onFile: async () => ({
      // oxlint-disable-next-line typescript/require-await -- a sink may wait; this one refuses or takes
      write: async (piece) => {
        bytes += piece.length;
        if (bytes > MAX_FILE_BYTES)
          throw new ApiError('request_too_large', `file is larger than ${MAX_FILE_BYTES} bytes`, {
            param: 'file',
          });
        // Once here, and once on its way to the engine.
        exchange.held?.add(2 * piece.length);
        pieces.push(Buffer.from(piece));
      },
    }),
  });
  if (fields.some(([name]) => name === 'file'))
    throw refuse('invalid_value', 'file', 'file is text: its part of the form has no filename');
  if (file === undefined || file.field !== 'file')
    throw refuse('missing_required_parameter', 'file', 'file is missing, expected a sound file');
  return { fields, audio: Buffer.concat(pieces) };
}

function formOf(body: Partial<TranscriptionFields>, task: AnswerForm['task']): AnswerForm {
  const format = body.response_format ?? 'json';
  const granularities = body.timestamp_granularities ?? [];
  if (granularities.length > 0 && format !== 'verbose_json')
    throw refuse(
      'invalid_value',
      'timestamp_granularities',
      'timestamp_granularities is for the response_format verbose_json',
    );
  if (body.stream === true && format !== 'json' && format !== 'text')
    throw refuse('invalid_value', 'stream', 'stream is for the response_formats json and text');
  return {
    format,
    task,
    temperature: body.temperature ?? 0,
    words: granularities.includes('word'),
    segments: granularities.length === 0 || granularities.includes('segment'),
  };
}

async function answer(
  call: Call,
  events: AsyncIterable<TranscribeEvent>,
  form: AnswerForm,
): Promise<unknown> {
  const heard = await hear(events, () => undefined);
  const made = transcriptOf(heard, form);
  if (typeof made !== 'string') return made;
  call.reply.type(`${TYPES[form.format as keyof typeof TYPES]}; charset=utf-8`);
  return made;
}

/** Bytes of an event without text, for the padding. */
const BASE_BYTES = Buffer.byteLength(JSON.stringify(deltaOf('')));

function deltaOf(delta: string): object {
  return { type: 'transcript.text.delta', delta };
}

/**
 * Begins once the file was read, so that refusals of it have their status. A segment is a whole sentence, so
 * its event is padded as one that repeats a text.
 */
async function stream(call: Call, events: AsyncIterable<TranscribeEvent>): Promise<undefined> {
  let opened: ReturnType<typeof openStream> | undefined;
  const padder = call.deps.config.streamPadding ? createPadding(BASE_BYTES) : null;
  const send = (data: object): void => {
    const json = JSON.stringify(data);
    opened?.send(padder === null ? json : padder.pad(json, WHOLE));
  };
  try {
    const heard = await hear(events, (segment) => {
      opened ??= openStream(call);
      if (segment !== null) send(deltaOf(segment.text));
    });
    send({ type: 'transcript.text.done', text: spokenText(heard.segments), usage: secondsUsed(heard) });
    opened?.end('[DONE]');
  } catch (error) {
    if (opened === undefined) throw error;
    opened.end(JSON.stringify(errorBody(streamFailure(call, error))));
  }
  return undefined;
}

/** `onSegment` gets null when the file was read, then each segment. */
async function hear(
  events: AsyncIterable<TranscribeEvent>,
  onSegment: (segment: TranscribedSegment | null) => void,
): Promise<Heard> {
  const segments: TranscribedSegment[] = [];
  let [seconds, language] = [0, ''];
  for await (const event of events) {
    if (event.kind === 'segment') {
      segments.push(event.segment);
      onSegment(event.segment);
    } else if (event.kind === 'start') {
      ({ seconds } = event);
      onSegment(null);
    } else ({ language } = event);
  }
  return { seconds, language, segments };
}

// The attesting client against a server that behaves, through the OpenAI SDK and bare: what it sends, over
// which sockets, and that every socket of the pool was proven by itself ([M15] [M16]).

import { APIConnectionError } from 'openai';
import { describe, expect, test } from 'vitest';
import { isAttestationResult } from '../../../attestation/appraise/appraise.ts';
import { MEASUREMENT, MODEL_ID, MODEL_SHA256, send } from '../../fixtures/attestation/attested-server.ts';
import { deferred } from '../../fixtures/deferred.ts';
import { sdk, say, useAttestedClients } from '../../fixtures/attestation/attested-client.ts';

const { serve, client } = useAttestedClients();

describe('the OpenAI SDK over attestedFetch', () => {
  test('chats, on the connection that was verified', async () => {
    const server = await serve();
    const fetch = client();
    const answer = await sdk(server, fetch).chat.completions.create(say('hello'));
    expect(answer.choices[0]?.message.content).toBe('echo hello');
    expect(server.connections).toHaveLength(1);
    expect(server.connections[0]?.requests.map(({ path }) => path.replace(/=.*/, ''))).toEqual([
      '/v1/attestation?nonce',
      '/v1/chat/completions',
    ]);
    expect(server.requests()[0]?.headers.get('authorization')).toBe('Bearer secret');
    const result = fetch.result(server.origin);
    expect(isAttestationResult(result)).toBe(true);
    expect(isAttestationResult({ ...result })).toBe(false);
    expect(result).toMatchObject({
      teeType: 'simulated',
      simulated: true,
      measurement: MEASUREMENT,
      build: 'test build',
      product: 'Genoa',
    });
    expect(result?.models).toEqual(new Map([[MODEL_ID, MODEL_SHA256]]));
  });

  test('streams', async () => {
    const server = await serve();
    const stream = await sdk(server, client()).chat.completions.create({
      ...say('one two three'),
      stream: true,
    });
    const words: string[] = [];
    for await (const chunk of stream) words.push(chunk.choices[0]?.delta.content ?? '');
    expect(words).toEqual(['', 'echo ', 'one ', 'two ', 'three', '']);
  });

  test('aborts: the server sees the connection go away', async () => {
    const gone = deferred();
    const server = await serve({
      respond: (request, connection) => {
        connection.socket.once('close', () => gone.resolve());
        connection.socket.write(
          'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n',
        );
        const line = `data: ${JSON.stringify({ id: '1', object: 'chat.completion.chunk', created: 1, model: '', choices: [] })}\n\n`;
        connection.socket.write(`${line.length.toString(16)}\r\n${line}\r\n`);
        expect(request.method).toBe('POST');
      },
    });
    const stream = await sdk(server, client()).chat.completions.create({ ...say('x'), stream: true });
    for await (const _chunk of stream) stream.controller.abort();
    await gone.promise;
  });

  test('surfaces a refusal as the cause of its connection error', async () => {
    const server = await serve({ report: { measurement: new Uint8Array(48) } });
    const failure = await sdk(server, client())
      .chat.completions.create(say('x'))
      .catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(APIConnectionError);
    expect(failure).toMatchObject({ cause: { name: 'AttestationError', code: 'snp_measurement' } });
  });

  test('uploads a form, with its file', async () => {
    const server = await serve({
      respond: ({ body }, { socket }) =>
        send(socket, 200, JSON.stringify({ text: body.includes('RIFFdata') ? 'heard' : 'lost' })),
    });
    const answer = await sdk(server, client()).audio.transcriptions.create({
      model: MODEL_ID,
      file: new File(['RIFFdata'], 'a.wav'),
    });
    expect(answer.text).toBe('heard');
  });
});

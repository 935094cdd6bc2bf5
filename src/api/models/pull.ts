// POST /v1/models/pull: fetch a model from the hub, progress as server-sent events. The pull belongs to the
// server, not to the connection: it goes on when the client leaves; DELETE /v1/models/pull/:name stops it.

import { ApiError, apiErrorOf } from '../../base/errors.ts';
import { pullCancelledAnswer, pullEvent, pullStatusAnswer } from '../response-schemas.ts';
import { flag, object, optional, text } from '../../base/shape.ts';
import { errorBody } from '../../http/errors.ts';
import { route } from '../../http/route.ts';
import { openStream, streamFailure } from '../generation/stream.ts';
import { recordModel } from '../model-access.ts';
import type { ModelService, PullEvent, PullStatus } from '../../models/seam.ts';

type Pulls = Pick<ModelService<unknown>, 'pullStatus' | 'cancelPull'>;

export const pullModel = route({
  method: 'POST',
  path: '/v1/models/pull',
  access: 'admin',
  limited: true,
  untimed: true,
  summary: 'Fetch a model from the hub; progress as server-sent events.',
  tag: 'Models',
  body: object({
    name: text({
      min: 1,
      max: 1024,
      about:
        '`owner/repo`, `owner/repo:QUANT` or `owner/repo/file.gguf`, with an optional `@revision`; `hf.co/` may stand before it, or the address of a page of huggingface.co in its place. `:latest` is the default quantization. A repository of safetensors is converted, and quantised to QUANT.',
    }),
    force: optional(flag('Fetch again what is there already.')),
    token: optional(
      text({ min: 1, max: 1024, about: 'Token for the hub, for gated models. Never stored or logged.' }),
    ),
  }),
  streams: 'always',
  answer: pullEvent,
  errors: ['invalid_model_name', 'pull_disabled', 'too_many_models'],
  async handle(call) {
    const { deps, body, exchange } = call;
    const events = deps.models.pull(
      { name: body.name, force: body.force, token: body.token },
      exchange.signal,
    );
    const iterator = events[Symbol.asyncIterator]();
    // A request refused at once (an invalid name, pulls switched off) gets a plain error, not a stream.
    let result = await iterator.next();
    const stream = openStream(call);
    try {
      for (; result.done !== true; result = await iterator.next()) {
        const event = result.value;
        if (isTerminal(event)) {
          if (event.status === 'error') exchange.errorCode = event.code;
          if ('id' in event) {
            const model = deps.models.get(event.id);
            if (model !== undefined) recordModel(exchange, model);
          }
          stream.end(JSON.stringify(event.status === 'error' ? failure(errorOf(event)) : event));
          return undefined;
        }
        stream.send(JSON.stringify(event));
        await stream.flush();
      }
      throw new ApiError('internal_error', 'the pull ended without a result');
    } catch (thrown) {
      stream.end(JSON.stringify(failure(streamFailure(call, thrown))));
      return undefined;
    } finally {
      await iterator.return?.();
    }
  },
});

function isTerminal(event: PullEvent): boolean {
  return event.status === 'success' || event.status === 'already_exists' || event.status === 'error';
}

/** Readers of pull events and readers of the API's error envelope each find the form they know. */
function failure(error: ApiError): object {
  return { status: 'error', code: error.code, message: error.message, ...errorBody(error) };
}

function errorOf({ code, message }: Extract<PullEvent, { status: 'error' }>): ApiError {
  return apiErrorOf(code, 'pull_failed', message);
}

export const pullStatus = route({
  method: 'GET',
  path: '/v1/models/pull/:name/status',
  // Names and errors may be of a private repository: where there are keys, only callers that may pull see
  // them.
  access: 'operator',
  limited: true,
  summary: 'State of a pull; it survives a restart.',
  tag: 'Models',
  answer: pullStatusAnswer,
  errors: ['pull_state_not_found'],
  handle: async ({ deps, params }) => answerPullStatus(deps.models, params['name'] ?? ''),
});

export const cancelPull = route({
  method: 'DELETE',
  path: '/v1/models/pull/:name',
  access: 'admin',
  limited: true,
  summary: 'Stop a pull. What was fetched stays, and the next pull goes on from there.',
  tag: 'Models',
  answer: pullCancelledAnswer,
  errors: ['pull_state_not_found'],
  handle: async ({ deps, params }) => cancelPullOf(deps.models, params['name'] ?? ''),
});

export async function answerPullStatus(pulls: Pulls, name: string): Promise<PullStatus> {
  const status = await pulls.pullStatus(name);
  if (status === undefined) throw pullNotFound();
  return status;
}

export async function cancelPullOf(pulls: Pulls, name: string): Promise<object> {
  if (!(await pulls.cancelPull(name))) throw pullNotFound();
  return { name, cancelled: true };
}

function pullNotFound(): ApiError {
  return new ApiError('pull_state_not_found', 'nothing of that name is or was being pulled');
}

// Settings of the models a server loads, keeps and fetches.

import { boolean, measured, oneOf, operator, string, strings, whole } from './fields.ts';
import type { Section } from './fields.ts';
import { DURATION, MODEL_ID, TOKEN, WEB_URL } from './forms.ts';

const MI_B = 1024 * 1024;
const MAX = Number.MAX_SAFE_INTEGER;

export const modelsSection = {
  max_loaded: operator(whole(1, 1000, 'models loaded at once', 4)),
  memory_budget_bytes: operator(
    whole(
      0,
      MAX,
      'memory loaded models may take, estimated before loading; 0: 80 % of what the machine has',
      0,
    ),
  ),
  keep_alive: operator(
    string('how long an idle model stays loaded; "-1": for ever', { default: '5m', form: DURATION }),
  ),
  max_keep_alive: operator(
    string(
      'where keys are configured: the longest a request without an admin key may have an idle model stay; "-1": for ever',
      { default: '1h', form: DURATION },
    ),
  ),
  preload: operator(strings(100, 'model ids loaded at start', { form: MODEL_ID })),
  max_waiting: operator(
    whole(
      1,
      100_000,
      'requests that may wait for one model to load, half of them for one caller; more are answered 429 engine_overloaded',
      256,
    ),
  ),
  load_timeout_ms: operator(
    whole(1000, 86_400_000, 'staging and loading one model may take this long', 600_000),
  ),
  slots: measured(whole(1, 256, 'sequences a model decodes together', 8)),
  threads: operator(whole(0, 1024, 'CPU threads of one engine; 0: chosen by the engine', 0)),
  context_length: measured(whole(16, 16 * MI_B, 'longest context given to a model that allows more', 8192)),
  drafting: measured(
    oneOf(
      ['exact', 'always', 'off'],
      'whether a text that repeats itself or its prompt is guessed ahead where that measures faster (prompt lookup): `exact` only with the unrounded keys and values of small models, where the answer is the same token by token; `always` also where a batch may change the last digits of a logit',
      { default: 'exact' },
    ),
  ),
  kv_type: measured(
    oneOf(
      ['f16', 'q8_0'],
      'how models that generate keep keys and values: `f16`, or `q8_0` for about half the memory; head widths must then be multiples of 32. Unset: `f16`, and unrounded on small models',
    ),
  ),
  pull_enabled: measured(boolean('whether models may be fetched from a hub; off in the image', true)),
  hub: measured(
    string(
      'address of the hub, as HF_ENDPOINT; unset: https://huggingface.co. https only unless `hub_private`',
      { form: WEB_URL },
    ),
  ),
  hub_token: operator(string('token for the hub, as HF_TOKEN', { form: TOKEN, secret: true })),
  hub_private: measured(boolean('allow a hub on a private address or on plain http', false)),
} as const satisfies Section;

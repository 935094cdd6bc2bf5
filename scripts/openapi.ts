// Writes docs/openapi.json and the generated tables of docs/api.md from the routes the server registers, and
// docs/workshop-openapi.json and the table of docs/workshop.md from those of a workshop. `--check` compares
// instead of writing; a difference is exit 1.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DEFAULT_CONFIG } from '../src/http/deps.ts';
import { speaksMessages } from '../src/http/dialect.ts';
import type { Route } from '../src/http/route.ts';
import { messagesErrorAnswer } from '../src/api/messages/answer-schema.ts';
import { errorAnswer, errorObject } from '../src/api/response-schemas.ts';
import { API_CODES, type Acts, type ApiCode, type ApiCodeEntry } from '../src/base/api-codes.ts';
import { type JsonSchema, object, text as textOf } from '../src/base/shape.ts';
import { allRoutes } from '../src/api/routes.ts';
import { allWorkshopRoutes } from '../src/workshop/all-routes.ts';
import { Publications } from '../src/workshop/hub/publications.ts';
import { Jobs } from '../src/workshop/jobs/jobs.ts';
import { allKinds } from '../src/workshop/kinds.ts';
import { PythonEnvironment } from '../src/workshop/python/environment.ts';

function at(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}
const PAGE = { html: new Uint8Array(0), sha256: '', headers: {} };
const routes = allRoutes(
  {
    config: { ...DEFAULT_CONFIG, metrics: 'on' },
    metrics: { text: () => '' },
    startedAt: 0,
    isDraining: () => false,
  },
  { console: PAGE },
);
const python = new PythonEnvironment({ folder: '/nowhere' });
/** Declared, never called: no job and no publication is behind them. */
const ofWorkshop = allWorkshopRoutes({
  kinds: allKinds(python),
  jobs: Object.create(Jobs.prototype) as Jobs,
  hub: { endpoint: '', pull: false, publish: false },
  python,
  publications: Object.create(Publications.prototype) as Publications,
  assets: { dataFolder: '/nowhere', signature: undefined },
});
const version = (JSON.parse(readFileSync(at('package.json'), 'utf8')) as { version: string }).version;

function isUnder(value: unknown): value is Record<string, JsonSchema> {
  return typeof value === 'object' && value !== null;
}

function operation(route: Route, alias: boolean): object {
  const query = route.query?.schema;
  const properties = isUnder(query?.['properties']) ? query['properties'] : {};
  const inPath = [...route.path.matchAll(/:(\w+)|\*/g)].map(([, name]) => ({
    name: name ?? 'name',
    in: 'path',
    required: true,
    description: name === undefined ? 'May have plain slashes.' : undefined,
    schema: { type: 'string' },
  }));
  const inQuery = Object.entries(properties).map(([name, schema]) => ({
    name,
    in: 'query',
    required: false,
    schema,
  }));
  const parameters = [...inPath, ...inQuery];
  const json = route.answer === undefined ? {} : { 'application/json': { schema: route.answer.schema } };
  const events = {
    'text/event-stream': { schema: { type: 'string', description: 'Server-sent events; see docs/api.md.' } },
  };
  const content = contentOf(route, json, events);
  return {
    summary: route.summary,
    tags: [route.tag],
    ...(alias && { deprecated: false, description: `The same as ${route.path}.` }),
    ...(route.access === 'open'
      ? { security: [] }
      : { security: securityOf(route), 'x-access': route.access }),
    ...(parameters.length > 0 && { parameters }),
    ...((route.body ?? route.form) !== undefined && { requestBody: requestBodyOf(route) }),
    responses: {
      [String(route.status ?? 200)]: { description: 'The answer.', content },
      202:
        route.accepted === undefined
          ? undefined
          : jsonAnswer('It is not over; ask for it by its id.', route.accepted.schema),
      default: { $ref: `#/components/responses/${errorOf(route.path)}` },
    },
    ...(route.errors !== undefined && { 'x-error-codes': route.errors }),
  };
}

function errorOf(path: string): string {
  if (path.startsWith('/api/')) return 'ErrorWithDetail';
  return speaksMessages(path) ? 'MessagesError' : 'Error';
}

/** The media types of an answer. */
function contentOf(route: Route, json: object, events: object): object {
  if (route.text === true) return { 'text/plain': { schema: { type: 'string' } } };
  if (route.bytes !== undefined) return { [route.bytes]: { schema: { type: 'string', format: 'binary' } } };
  return { ...(route.streams !== 'always' && json), ...(route.streams !== undefined && events) };
}

/** The body that a route reads: JSON, a form, or either. */
function requestBodyOf({ body, form, fields }: Route): object {
  if (form !== undefined)
    return { required: true, content: { 'multipart/form-data': { schema: form.schema } } };
  const types = ['application/json', ...(fields === undefined ? [] : FORMS)];
  const content = Object.fromEntries(types.map((type) => [type, { schema: body?.schema }]));
  return { required: true, content };
}

const FORMS = ['application/x-www-form-urlencoded', 'multipart/form-data'];

/** Either of these. */
function securityOf({ path }: Route): readonly object[] {
  return speaksMessages(path) ? [{ bearer: [] }, { apiKey: [] }] : [{ bearer: [] }];
}

function pathsOf(routes: readonly Route[]): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    for (const path of [route.path, ...(route.aliases ?? [])]) {
      // An id with plain slashes is the same route again; OpenAPI has no way to say it.
      if (path !== route.path && path.includes('*')) continue;
      const key = path.replaceAll(/:(\w+)/g, '{$1}').replace('*', '{name}');
      (paths[key] ??= {})[route.method.toLowerCase()] = operation(route, path !== route.path);
    }
  }
  return paths;
}

function jsonAnswer(description: string, schema: JsonSchema): object {
  return { description, content: { 'application/json': { schema } } };
}

function openApi(): object {
  return {
    openapi: '3.1.0',
    info: {
      title: 'Assay',
      version,
      description: 'OpenAI-compatible inference with attestation. Generated from the routes of the server.',
    },
    paths: pathsOf(routes),
    components: {
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer' },
        apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
      },
      responses: {
        Error: jsonAnswer('Any refusal or failure.', errorAnswer.schema),
        MessagesError: jsonAnswer('Any refusal or failure below /v1/messages.', messagesErrorAnswer.schema),
      },
    },
  };
}

/** Codes that any route of a workshop can give: of fields, of HTTP, of keys and limits, of its end. */
const ANY_ROUTE: readonly ApiCode[] = ['missing_required_parameter', 'unknown_parameter', 'unsupported_parameter', 'invalid_type', 'invalid_value', 'empty_string', 'empty_array', 'string_above_max_length', 'string_below_min_length', 'array_above_max_length', 'integer_below_min_value', 'integer_above_max_value', 'decimal_below_min_value', 'decimal_above_max_value', 'invalid_request', 'invalid_url', 'invalid_body', 'invalid_json', 'invalid_form', 'json_too_deep', 'json_too_many_values', 'unknown_url', 'url_too_long', 'method_not_allowed', 'request_too_large', 'request_timeout', 'client_too_slow', 'client_closed_request', 'unsupported_media_type', 'unsupported_content_encoding', 'expectation_failed', 'headers_too_large', 'too_many_pipelined_requests', 'invalid_api_key', 'origin_not_allowed', 'rate_limit_exceeded', 'server_overloaded', 'server_shutting_down', 'connection_ending', 'internal_error', 'record_failed', 'timeout']; // prettier-ignore

function workshopOpenApi(): object {
  const errorWithDetail = object({ error: errorObject, detail: textOf({ max: 4096 }) });
  return {
    openapi: '3.1.0',
    info: {
      title: 'Assay workshop',
      version,
      description:
        'Conversions and other jobs with signed records. Generated from the routes of the workshop. `x-error-codes` of a route are beside those of the document, which any route can give.',
    },
    'x-error-codes': ANY_ROUTE,
    paths: pathsOf(ofWorkshop),
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
      responses: {
        Error: jsonAnswer('Any refusal or failure.', errorAnswer.schema),
        ErrorWithDetail: jsonAnswer('Any refusal or failure below /api/.', errorWithDetail.schema),
      },
    },
  };
}

/** The fields of each, and its summary. */
function workshopTable(): string {
  const rows = ofWorkshop.map((route) => {
    const { method, path, aliases = [], body, form, summary } = route;
    const schema = body?.schema ?? form?.schema ?? {};
    const required = new Set(Array.isArray(schema['required']) ? schema['required'] : []);
    const names = Object.keys(isUnder(schema['properties']) ? schema['properties'] : {});
    const fields = names.map((name) => `\`${name}\`${required.has(name) ? '' : '?'}`).join(', ');
    const also = aliases.map((alias) => ` \`${alias}\``).join('');
    return `| \`${method} ${path}\`${also} | ${fields} | ${summary} |`;
  });
  return ['| route | fields | |', '|---|---|---|', ...rows].join('\n');
}

function routeTable(): string {
  const rows = routes.map((route) => {
    const also = (route.aliases ?? [])
      .filter((alias) => !alias.includes('*'))
      .map((alias) => ` \`${alias}\``);
    return `| \`${route.method} ${route.path}\`${also.join('')} | ${route.access} | ${route.summary} |`;
  });
  return ['| route | access | what |', '|---|---|---|', ...rows].join('\n');
}

const ACTS: Readonly<Record<Acts, string>> = {
  caller: 'caller',
  wait: 'wait, then the same again',
  operator: 'operator',
};

function codeTable(): string {
  const rows = Object.entries<ApiCodeEntry>(API_CODES)
    .toSorted(([, one], [, other]) => one.status - other.status)
    .map(
      ([code, { status, act, meaning, also = [] }]) =>
        `| ${[status, ...also].join(', ')} | \`${code}\` | ${ACTS[act]} | ${meaning} |`,
    );
  return ['| status | code | who acts | when |', '|--:|---|---|---|', ...rows].join('\n');
}

function parameterTable(path: string): string {
  const schema = routes.find((route) => route.path === path && route.method === 'POST')?.body?.schema ?? {};
  const properties = isUnder(schema['properties']) ? schema['properties'] : {};
  const required = new Set(Array.isArray(schema['required']) ? schema['required'] : []);
  const rows = Object.entries(properties).map(
    ([name, each]) =>
      `| \`${name}\`${required.has(name) ? ' (required)' : ''} | ${range(each)} | ${text(each)} |`,
  );
  const refused = Array.isArray(schema['x-unsupported']) ? schema['x-unsupported'] : [];
  const known =
    refused.length > 0
      ? `\n\nKnown and refused with \`unsupported_parameter\`: ${refused.map((name) => `\`${String(name)}\``).join(', ')}.`
      : '';
  return ['| parameter | values | meaning |', '|---|---|---|', ...rows].join('\n') + known;
}

function said(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}
function text(schema: JsonSchema): string {
  return said(schema['description']).replaceAll('|', '\\|');
}

function range(schema: JsonSchema): string {
  if (Array.isArray(schema['enum'])) return schema['enum'].map((each) => `\`${String(each)}\``).join(', ');
  if (schema['minimum'] !== undefined)
    return `${said(schema['type'])} ${said(schema['minimum'])}…${said(schema['maximum'])}`;
  if (Array.isArray(schema['anyOf']))
    return [...new Set((schema['anyOf'] as JsonSchema[]).map((each) => said(each['type'] ?? 'object')))].join(
      ' or ',
    );
  return said(schema['type'] ?? 'object');
}

function apiTables(): Readonly<Record<string, string>> {
  const tables: Record<string, string> = { routes: routeTable(), codes: codeTable() };
  for (const path of [
    '/v1/chat/completions',
    '/v1/responses',
    '/v1/messages',
    '/v1/completions',
    '/v1/embeddings',
    '/v1/rerank',
    '/v1/tokenize',
  ])
    tables[path] = parameterTable(path);
  return tables;
}

function fillIn(path: string, tables: Readonly<Record<string, string>>): string {
  const document = readFileSync(at(path), 'utf8');
  return document.replaceAll(/<!-- generated: (\S+) -->[\s\S]*?<!-- end -->/g, (_all, name: string) => {
    if (tables[name] === undefined) throw new Error(`${path} asks for an unknown table ${name}`);
    return `<!-- generated: ${name} -->\n\n${tables[name]}\n\n<!-- end -->`;
  });
}

const wanted: [string, string][] = [
  ['docs/openapi.json', `${JSON.stringify(openApi(), null, 2)}\n`],
  ['docs/api.md', fillIn('docs/api.md', apiTables())],
  ['docs/workshop-openapi.json', `${JSON.stringify(workshopOpenApi(), null, 2)}\n`],
  ['docs/workshop.md', fillIn('docs/workshop.md', { routes: workshopTable() })],
];
for (const [path, content] of wanted) {
  if (!process.argv.includes('--check')) writeFileSync(at(path), content);
  else if (!existsSync(at(path)) || readFileSync(at(path), 'utf8') !== content) {
    console.error(`${path} is not what the routes say; run scripts/openapi.ts`);
    process.exitCode = 1;
  }
}

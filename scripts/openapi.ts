// Writes docs/openapi.json and the generated tables of docs/api.md from the routes the server registers.
// `--check` compares instead of writing; a difference is exit 1.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DEFAULT_CONFIG } from '../src/http/deps.ts';
import type { Route } from '../src/http/route.ts';
import { errorAnswer } from '../src/api/response-schemas.ts';
import { API_CODES, type Acts, type ApiCodeEntry } from '../src/base/api-codes.ts';
import type { JsonSchema } from '../src/base/shape.ts';
import { allRoutes } from '../src/api/routes.ts';

function at(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}
const routes = allRoutes({
  config: { ...DEFAULT_CONFIG, metrics: 'on' },
  metrics: { text: () => '' },
  startedAt: 0,
  isDraining: () => false,
});
const version = (JSON.parse(readFileSync(at('package.json'), 'utf8')) as { version: string }).version;

function isUnder(value: unknown): value is Record<string, JsonSchema> {
  return typeof value === 'object' && value !== null;
}

function operation(route: Route, alias: boolean): object {
  const query = route.query?.schema;
  const properties = isUnder(query?.['properties']) ? query['properties'] : {};
  const inPath = [...route.path.matchAll(/:(\w+)/g)].map((match) => ({
    name: match[1],
    in: 'path',
    required: true,
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
  const content =
    route.text === true
      ? { 'text/plain': { schema: { type: 'string' } } }
      : route.bytes === true
        ? { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } }
        : { ...(route.streams !== 'always' && json), ...(route.streams !== undefined && events) };
  return {
    summary: route.summary,
    tags: [route.tag],
    ...(alias && { deprecated: false, description: `The same as ${route.path}.` }),
    ...(route.access === 'open'
      ? { security: [] }
      : { security: [{ bearer: [] }], 'x-access': route.access }),
    ...(parameters.length > 0 && { parameters }),
    ...(route.body !== undefined && {
      requestBody: { required: true, content: { 'application/json': { schema: route.body.schema } } },
    }),
    ...(route.form !== undefined && {
      requestBody: { required: true, content: { 'multipart/form-data': { schema: route.form.schema } } },
    }),
    responses: {
      [String(route.status ?? 200)]: { description: 'The answer.', content },
      default: { $ref: '#/components/responses/Error' },
    },
    ...(route.errors !== undefined && { 'x-error-codes': route.errors }),
  };
}

function openApi(): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    for (const path of [route.path, ...(route.aliases ?? [])]) {
      // An id with plain slashes is the same route again; OpenAPI has no way to say it.
      if (path.includes('*')) continue;
      const key = path.replaceAll(/:(\w+)/g, '{$1}');
      (paths[key] ??= {})[route.method.toLowerCase()] = operation(route, path !== route.path);
    }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Assay',
      version,
      description: 'OpenAI-compatible inference with attestation. Generated from the routes of the server.',
    },
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
      responses: {
        Error: {
          description: 'Any refusal or failure.',
          content: { 'application/json': { schema: errorAnswer.schema } },
        },
      },
    },
  };
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

function fillIn(document: string): string {
  const tables: Record<string, string> = { routes: routeTable(), codes: codeTable() };
  for (const path of [
    '/v1/chat/completions',
    '/v1/responses',
    '/v1/completions',
    '/v1/embeddings',
    '/v1/rerank',
    '/v1/tokenize',
  ])
    tables[path] = parameterTable(path);
  return document.replaceAll(/<!-- generated: (\S+) -->[\s\S]*?<!-- end -->/g, (_all, name: string) => {
    if (tables[name] === undefined) throw new Error(`docs/api.md asks for an unknown table ${name}`);
    return `<!-- generated: ${name} -->\n\n${tables[name]}\n\n<!-- end -->`;
  });
}

const wanted: [string, string][] = [
  ['docs/openapi.json', `${JSON.stringify(openApi(), null, 2)}\n`],
  ['docs/api.md', fillIn(readFileSync(at('docs/api.md'), 'utf8'))],
];
for (const [path, content] of wanted) {
  if (!process.argv.includes('--check')) writeFileSync(at(path), content);
  else if (readFileSync(at(path), 'utf8') !== content) {
    console.error(`${path} is not what the routes say; run scripts/openapi.ts`);
    process.exitCode = 1;
  }
}

// Reads the tool calls in what the model wrote, in the model's own format (engine/seam/tool-format). It works
// on any prefix of the text, so that a stream passes on arguments while they are written; text that turns
// out not to be a call is passed on as content.

import type { ToolFormat } from '../../../engine/seam/engine.ts';
import type { CallSyntax } from '../../../engine/seam/tool-format.ts';
import { triggersOf } from '../../../grammar/calls/triggers.ts';
import { SchemaView } from '../../../grammar/schema-view.ts';
import type { ArgumentReader } from './argument-reader.ts';
import { ElementReader } from './elements.ts';
import type { Callable, ToolReader } from './events.ts';
import type { HeadPart } from './head.ts';
import { createJsonReader } from './json.ts';
import { LiteralReader } from './literal.ts';
import { ParameterReader } from './parameters.ts';
import { TextCallReader } from './text-calls.ts';

/** `tools`: those that may be called. An answer may look like a call and name none of them. */
// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
export function createToolReader(format: ToolFormat, tools: readonly Callable[]): ToolReader {
  const names = tools.map((tool) => tool.name);
  const { syntax } = format;
  switch (syntax.kind) {
    case 'object':
    case 'named':
      return createJsonReader({ ...format, triggers: triggersOf(format, names) }, syntax, names);
    case 'tagged':
    case 'elements':
    case 'literal':
      return new TextCallReader({
        format,
        names,
        heads: headsOf(syntax),
        tail: tailOf(syntax),
        argumentsOf: (name) =>
          argumentReader(
            syntax,
            tools.find((tool) => tool.name === name),
          ),
      });
  }
}

type TextCall = Exclude<CallSyntax, { readonly kind: 'object' | 'named' }>;

function argumentReader(syntax: TextCall, tool: Callable | undefined): ArgumentReader {
  if (syntax.kind === 'literal') return new LiteralReader(syntax);
  const schema = new SchemaView(tool?.parameters, tool?.strict === false);
  return syntax.kind === 'tagged' ? new ParameterReader(syntax, schema) : new ElementReader(syntax, schema);
}

function headsOf(syntax: TextCall): readonly (readonly HeadPart[])[] {
  const name: HeadPart = { kind: 'name', quoted: false };
  const text = (of: string): HeadPart => ({ kind: 'text', text: of });
  if (syntax.kind !== 'tagged') return [[text(` ${syntax.start}`), name, text(syntax.afterName)]];
  const { start, optional, again, afterName, afterNumber } = syntax;
  const named = again === null ? [name] : [name, text(again), name];
  const numbered: readonly HeadPart[] =
    afterNumber === null ? [] : [{ kind: 'id', quoted: false }, text(afterNumber)];
  const starts = optional === '' ? [start] : [start, start.slice(optional.length)];
  return starts.map((each) => [text(` ${each.trimStart()}`), ...named, text(afterName), ...numbered]);
}

/** The rest of a call's end once its arguments have been read. */
function tailOf(syntax: TextCall): string {
  if (syntax.kind === 'tagged') return syntax.end.split(/\s/).slice(1).join(' ');
  return syntax.kind === 'literal' && syntax.form.kind === 'bare' ? syntax.end : '';
}

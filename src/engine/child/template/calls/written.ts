// A call as a format writes it: the check that a template's rendering holds it.

import type { CallSyntax, NamedCall, ObjectCall, ToolFormat } from '../../../seam/tool-format.ts';
import { argumentTexts } from './written-arguments.ts';

/** A call; `arguments` is JSON. */
export interface WrittenCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: string;
}

/** Whether a rendering holds this call in this format; white space counts where arguments are not JSON. */
export function holdsCall(format: ToolFormat, rendered: string, call: WrittenCall): boolean {
  return callTexts(format.syntax, call).some((each) => holds(format, rendered, format.open + each));
}

/** The same of several calls in one turn. */
export function holdsCalls(format: ToolFormat, rendered: string, calls: readonly WrittenCall[]): boolean {
  return calls.length > 0 && wordings(format, calls).some((each) => holds(format, rendered, each));
}

function holds({ syntax }: ToolFormat, rendered: string, text: string): boolean {
  const isJson = syntax.kind === 'object' || syntax.kind === 'named';
  return isJson ? squeeze(rendered).includes(squeeze(text)) : rendered.includes(text);
}

/** Calls as a model writes them, in the first wording of the format. */
export function wholeCalls(format: ToolFormat, calls: readonly WrittenCall[]): string {
  const [first = ''] = wordings(format, calls);
  return first;
}

/** Calls in each wording of the format. */
function wordings(format: ToolFormat, calls: readonly WrittenCall[]): readonly string[] {
  const { syntax, open, between, close } = format;
  const end = (syntax.kind === 'object' ? '}' : '') + syntax.end;
  const texts = calls.map((call) => callTexts(syntax, call).map((text) => text + end));
  const ways = texts[0]?.map((_, way) => texts.map((each) => each[way] ?? '').join(between)) ?? [''];
  return ways.map((way) => open + way + close);
}

/** All texts of a format, for the control tokens among them: a reader of the answer needs these. */
export function framingOf({
  open,
  between,
  close,
  turn,
  syntax,
  triggers,
  silent,
  aside,
}: ToolFormat): string {
  return [
    open,
    between,
    close,
    turn,
    ...triggers,
    ...silent,
    ...(aside === null ? [] : [...aside.starts, aside.end]),
    ...framingTexts(syntax),
  ].join('\n');
}

function squeeze(text: string): string {
  return text.replaceAll(/\s/g, '');
}

/** The ways in which a call may be written, up to the end of its arguments. */
// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
export function callTexts(syntax: CallSyntax, call: WrittenCall): readonly string[] {
  switch (syntax.kind) {
    case 'object':
      return [syntax.start + objectText(syntax, call)];
    case 'named':
      return namedTexts(syntax, call);
    case 'tagged':
    case 'elements':
    case 'literal':
      return argumentTexts(syntax, call);
  }
}

// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
function framingTexts(syntax: CallSyntax): readonly string[] {
  switch (syntax.kind) {
    case 'object':
      return [syntax.start, syntax.end];
    case 'named':
      return [
        ...syntax.wordings.flatMap(({ start, after }) => [start, after]),
        syntax.id?.mark ?? '',
        syntax.end,
      ];
    case 'tagged':
      return [
        syntax.start,
        syntax.again ?? '',
        syntax.afterName,
        syntax.afterNumber ?? '',
        syntax.parameterStart,
        syntax.afterKey,
        syntax.typed?.after ?? '',
        syntax.parameterEnd,
        syntax.end,
      ];
    case 'elements':
      return [syntax.start, syntax.afterName, syntax.mark, syntax.end];
    case 'literal':
      return [
        syntax.start,
        syntax.afterName,
        syntax.form.kind === 'bare' ? syntax.form.quote : '',
        syntax.end,
      ];
  }
}

function objectText(syntax: ObjectCall, call: WrittenCall): string {
  const name = JSON.stringify(call.name);
  if (syntax.name === null) return `{${name}:${call.arguments}`;
  const id = syntax.id?.at !== 'first' ? '' : `"${syntax.id.key}":${JSON.stringify(call.id)},`;
  return `{${id}"${syntax.name}":${name},"${syntax.arguments}":${call.arguments}`;
}

function namedTexts({ wordings: all, id }: NamedCall, call: WrittenCall): readonly string[] {
  const named = id === null ? call.name : identified(id, call);
  return all.map(({ start, after }) => start + named + after + call.arguments);
}

function identified(id: NonNullable<NamedCall['id']>, call: WrittenCall): string {
  if (id.at === 'around') return call.id;
  return id.at === 'before' ? call.id + id.mark + call.name : call.name + id.mark + call.id;
}

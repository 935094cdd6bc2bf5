// `assay chat`: a chat in the terminal that verifies first. No prompt is sent before the evidence of the very
// connection was accepted; the verdict is one line on standard error. Ctrl-C cancels the answer, twice ends.
// Without a terminal on standard input, all input is one prompt, and standard output carries only the answer.

import { readFileSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import {
  allowSimulated,
  AttestationError,
  parsePolicy,
  type AttestationResult,
  type Policy,
} from '@assay/attestation';
import { attestedFetch, type AttestedFetch } from '@assay/attestation/node';
import { systemReason } from '../base/system-error.ts';
import { environment } from '../config/read.ts';
import { CommandError, parseArguments, optionText, UsageError, type Parsed } from './arguments.ts';
import { commandLines } from './command-lines.ts';
import { synopsisOf } from './help.ts';
import { painter, shown } from './terminal.ts';

const DEFAULT_URL = 'https://127.0.0.1:8443';
const DEFAULT_POLICY = '.assay/policy.json';
const MAX_PROMPT_BYTES = 8 * 1024 * 1024;

interface Message {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export async function chatCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    {
      model: { type: 'string' },
      policy: { type: 'string' },
      'allow-simulated': { type: 'boolean' },
      system: { type: 'string' },
      'key-file': { type: 'string' },
    },
    true,
  );
  if (positionals.length > 1) throw new UsageError(synopsisOf('chat'));
  const url = serverUrl(positionals[0] ?? DEFAULT_URL);
  const fetch = attestedFetch({ policy: policyOf(values) });
  try {
    const result = await fetch.verify(url).catch((error: unknown) => {
      throw notVerified(error, url);
    });
    process.stderr.write(`${verdict(result, url)}\n`);
    const key = keyOf(values);
    const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
    const model = optionText(values['model']) ?? (await firstChatModel(fetch, url, headers));
    const system = optionText(values['system']);
    const chat = new Chat({ fetch, url, headers, model, system });
    if (process.stdin.isTTY) await new Conversation(chat).run();
    else await onePrompt(chat);
    return 0;
  } finally {
    await fetch.close();
  }
}

function serverUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'https:')
    throw new UsageError(`${JSON.stringify(text)} is no https URL of a server, such as ${DEFAULT_URL}`);
  return url;
}

function policyOf(values: Parsed['values']): Policy {
  const given = optionText(values['policy']);
  const path = given ?? DEFAULT_POLICY;
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const hint =
      given === undefined
        ? `; ${commandLines().assay} serve --demo writes it for its own server, --policy FILE names another`
        : '';
    throw new UsageError(`the policy ${path} cannot be read: ${systemReason(error)}${hint}`);
  }
  try {
    return parsePolicy(text, values['allow-simulated'] === true ? { [allowSimulated]: true } : {});
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    throw new UsageError(`the policy ${path} is refused: ${shown(error.message)} (${error.code})`);
  }
}

function keyOf(values: Parsed['values']): string | undefined {
  const file = optionText(values['key-file']);
  if (file === undefined) return environment()['OPENAI_API_KEY'];
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw new UsageError(`--key-file ${file} cannot be read: ${systemReason(error)}`);
  }
}

function verdict(result: AttestationResult, url: URL): string {
  const paint = painter(process.stderr);
  const what = result.simulated
    ? paint('yellow', 'SIMULATED, proves nothing about the machine')
    : paint('green', 'verified');
  const build = result.build === undefined ? '' : `, build ${JSON.stringify(shown(result.build))}`;
  return `${url.host}: ${what}: ${result.product ?? result.teeType}${build}, measurement ${result.measurement.slice(0, 16)}…, ${result.models.size} models`;
}

function notVerified(error: unknown, url: URL): Error {
  if (error instanceof AttestationError && error.code !== 'connection_failed') {
    const hint = error.hint === undefined ? '' : `; ${shown(error.hint)}`;
    return new CommandError(
      `${url.host} is NOT verified, nothing was sent: ${shown(error.message)} (${error.code})${hint}`.replaceAll(
        '\n',
        ' ',
      ),
    );
  }
  return new CommandError(`no server answers at ${url.origin} (${reasonOf(error)})`);
}

/** The system's code, of the first cause that has one. */
function reasonOf(error: unknown): string {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    const { code } = cause as NodeJS.ErrnoException;
    if (typeof code === 'string' && /^[A-Z]/.test(code)) return code;
  }
  return error instanceof Error ? error.name : 'failed';
}

async function firstChatModel(
  fetch: AttestedFetch,
  url: URL,
  headers: Readonly<Record<string, string>>,
): Promise<string> {
  const answer = (await jsonOf(await fetch(new URL('/v1/models', url), { headers }))) as {
    readonly data?: readonly { readonly id?: unknown; readonly type?: unknown }[] | undefined;
  };
  const chats = (answer.data ?? []).filter(({ type }) => type === 'chat');
  const id = chats[0]?.id;
  if (typeof id !== 'string')
    throw new CommandError('the server has no model that chats; --model ID names one');
  if (chats.length > 1)
    process.stderr.write(
      `model ${shown(id)}, of ${chats.map((chat) => shown(String(chat.id))).join(', ')}\n`,
    );
  return id;
}

async function jsonOf(response: Response): Promise<unknown> {
  const text = await response.text();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new CommandError(`the server answered ${response.status} without JSON`);
  }
  if (response.ok) return value;
  throw refusal(value, response.status);
}

function refusal(value: unknown, status?: number): CommandError {
  const { message, code } =
    (value as { readonly error?: { readonly message?: unknown; readonly code?: unknown } | undefined } | null)
      ?.error ?? {};
  const words = typeof message === 'string' ? message : 'the server refused';
  return new CommandError(shown(`${words} (${typeof code === 'string' ? code : (status ?? 'error')})`));
}

interface ChatOptions {
  readonly fetch: AttestedFetch;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly model: string;
  readonly system: string | undefined;
}

/** The messages so far, and the streamed answer to one more. */
class Chat {
  readonly #options: ChatOptions;
  readonly #messages: Message[] = [];

  constructor(options: ChatOptions) {
    this.#options = options;
    if (options.system !== undefined) this.#messages.push({ role: 'system', content: options.system });
  }

  /** Calls `write` with each piece. The part of a cancelled answer stays in the conversation. */
  async answer(prompt: string, write: (text: string) => void, signal: AbortSignal): Promise<void> {
    this.#messages.push({ role: 'user', content: prompt });
    let answer = '';
    try {
      for await (const piece of this.#stream(signal)) {
        answer += piece;
        write(shown(piece));
      }
    } finally {
      if (answer === '') this.#messages.pop();
      else this.#messages.push({ role: 'assistant', content: answer });
    }
  }

  async *#stream(signal: AbortSignal): AsyncGenerator<string> {
    const { fetch, url, headers, model } = this.#options;
    const response = await fetch(new URL('/v1/chat/completions', url), {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: JSON.stringify({ model, messages: this.#messages, stream: true }),
      signal,
    });
    if (!response.ok || response.body === null) {
      await jsonOf(response);
      return;
    }
    let held = '';
    const decoder = new TextDecoder();
    for await (const part of response.body) {
      held += decoder.decode(part as Uint8Array, { stream: true });
      const lines = held.split('\n');
      held = lines.pop() ?? '';
      for (const line of lines) {
        if (line === 'data: [DONE]') return;
        if (line.startsWith('data: ')) yield pieceOf(line.slice('data: '.length));
      }
    }
    throw new CommandError('the server ended the answer before it was complete');
  }
}

function pieceOf(data: string): string {
  const event = JSON.parse(data) as {
    readonly error?: unknown;
    readonly choices?: readonly { readonly delta?: { readonly content?: unknown } | undefined }[] | undefined;
  };
  if (event.error !== undefined) throw refusal(event);
  const content = event.choices?.[0]?.delta?.content;
  return typeof content === 'string' ? content : '';
}

/** Standard input as one prompt. */
async function onePrompt(chat: Chat): Promise<void> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    parts.push(part);
    size += part.length;
    if (size > MAX_PROMPT_BYTES) throw new UsageError(`the prompt is over ${MAX_PROMPT_BYTES} bytes`);
  }
  const prompt = Buffer.concat(parts).toString('utf8').trim();
  if (prompt === '') throw new UsageError('standard input holds no prompt');
  const cancel = new AbortController();
  const onInterrupt = (): void => cancel.abort();
  process.once('SIGINT', onInterrupt);
  try {
    await chat.answer(prompt, (text) => process.stdout.write(text), cancel.signal);
    process.stdout.write('\n');
  } catch (error) {
    throw cancel.signal.aborted ? new CommandError('cancelled') : plain(error);
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}

/** The failure of one answer, in a line. */
function plain(error: unknown): Error {
  if (error instanceof CommandError) return error;
  if (error instanceof AttestationError)
    return new CommandError(`nothing was sent: ${shown(error.message)} (${error.code})`);
  return new CommandError(`the connection failed (${reasonOf(error)})`);
}

/** Prompts of a person, one after the other. */
class Conversation {
  readonly #chat: Chat;
  readonly #lines: Interface;
  readonly #waiting: string[] = [];
  #answering: AbortController | undefined;
  #interrupted = false;
  #ended = false;
  #wake: () => void = () => undefined;

  constructor(chat: Chat) {
    this.#chat = chat;
    this.#lines = createInterface({
      input: process.stdin,
      output: process.stderr,
      prompt: '> ',
      terminal: true,
    });
  }

  /** Until the end of input, or Ctrl-C twice. */
  async run(): Promise<void> {
    const interrupt = (): void => this.#interrupt();
    process.on('SIGINT', interrupt);
    this.#lines.on('SIGINT', interrupt);
    this.#lines.on('line', (line) => {
      this.#interrupted = false;
      if (line.trim() === '') {
        this.#lines.prompt();
        return;
      }
      this.#waiting.push(line);
      this.#wake();
    });
    this.#lines.on('close', () => {
      this.#ended = true;
      this.#answering?.abort();
      this.#wake();
    });
    process.stderr.write('Ctrl-C cancels an answer, twice ends.\n');
    try {
      for (let prompt = await this.#next(); prompt !== undefined; prompt = await this.#next())
        await this.#answer(prompt);
    } finally {
      process.off('SIGINT', interrupt);
      this.#lines.close();
    }
  }

  async #next(): Promise<string | undefined> {
    for (;;) {
      const line = this.#waiting.shift();
      if (line !== undefined) return line;
      if (this.#ended) return undefined;
      this.#lines.prompt();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #answer(prompt: string): Promise<void> {
    const answering = (this.#answering = new AbortController());
    try {
      await this.#chat.answer(prompt, (text) => process.stdout.write(text), answering.signal);
      process.stdout.write('\n');
    } catch (error) {
      const said = answering.signal.aborted ? 'cancelled' : plain(error).message;
      process.stderr.write(`\n(${said})\n`);
    } finally {
      this.#answering = undefined;
    }
  }

  #interrupt(): void {
    if (this.#interrupted) {
      this.#lines.close();
      return;
    }
    this.#interrupted = true;
    if (this.#answering !== undefined) {
      this.#answering.abort();
      return;
    }
    if (this.#waiting.splice(0).length > 0) {
      process.stderr.write('\n(cancelled)\n');
      this.#lines.prompt();
      return;
    }
    // Typed text is dropped, as a shell does.
    this.#lines.write(null, { ctrl: true, name: 'e' });
    this.#lines.write(null, { ctrl: true, name: 'u' });
    process.stderr.write('\n(Ctrl-C again ends)\n');
    this.#lines.prompt();
  }
}

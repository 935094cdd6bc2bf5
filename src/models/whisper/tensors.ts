// The tensors of a whisper model, by name, as whisper.cpp asks for them (whisper-arch.h): their shapes follow
// from the sizes in the head of the file. Encoder and decoder have the same blocks; the decoder's look at the
// encoder as well.

/** The numbers in the head of a file. */
export interface WhisperSizes {
  readonly vocab: number;
  readonly audioContext: number;
  readonly audioState: number;
  readonly audioHeads: number;
  readonly audioLayers: number;
  readonly textContext: number;
  readonly textState: number;
  readonly textHeads: number;
  readonly textLayers: number;
  readonly mels: number;
  readonly fileType: number;
}

/** numbers: always F32. convolution: F16, or F32 in a model of F32. large: of the type of the model. */
export type TensorKind = 'numbers' | 'convolution' | 'large';

export interface ExpectedTensor {
  /** As ggml orders dimensions: rows are the first. */
  readonly shape: readonly number[];
  readonly kind: TensorKind;
}

/** A new map with every tensor a model of these sizes has. */
export function expectedTensors(sizes: WhisperSizes): Map<string, ExpectedTensor> {
  const { vocab, audioContext, audioState: state, audioLayers, textContext, textLayers, mels } = sizes;
  const tensors = new Map<string, ExpectedTensor>();
  const numbers = (name: string, ...shape: readonly number[]): void =>
    void tensors.set(name, { shape, kind: 'numbers' });
  const large = (name: string, ...shape: readonly number[]): void =>
    void tensors.set(name, { shape, kind: 'large' });
  const norm = (name: string): void => {
    numbers(`${name}.weight`, state);
    numbers(`${name}.bias`, state);
  };
  const attention = (name: string): void => {
    norm(`${name}_ln`);
    for (const part of ['query', 'key', 'value', 'out']) {
      large(`${name}.${part}.weight`, state, state);
      if (part !== 'key') numbers(`${name}.${part}.bias`, state);
    }
  };
  const block = (name: string, cross: boolean): void => {
    attention(`${name}.attn`);
    if (cross) attention(`${name}.cross_attn`);
    norm(`${name}.mlp_ln`);
    large(`${name}.mlp.0.weight`, state, 4 * state);
    numbers(`${name}.mlp.0.bias`, 4 * state);
    large(`${name}.mlp.2.weight`, 4 * state, state);
    numbers(`${name}.mlp.2.bias`, state);
  };
  numbers('encoder.positional_embedding', state, audioContext);
  for (const [name, inputs] of [
    ['encoder.conv1', mels],
    ['encoder.conv2', state],
  ] as const) {
    tensors.set(`${name}.weight`, { shape: [3, inputs, state], kind: 'convolution' });
    numbers(`${name}.bias`, 1, state);
  }
  norm('encoder.ln_post');
  for (let i = 0; i < audioLayers; i++) block(`encoder.blocks.${i}`, false);
  numbers('decoder.positional_embedding', state, textContext);
  large('decoder.token_embedding.weight', state, vocab);
  norm('decoder.ln');
  for (let i = 0; i < textLayers; i++) block(`decoder.blocks.${i}`, true);
  return tensors;
}

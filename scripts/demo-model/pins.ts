// The SHA-256 of each demo model, the same on every machine. After changing a model on purpose run main.ts
// --unpinned and put the new digests here.

export const PINS: Readonly<Record<'demo-chat' | 'demo-context' | 'demo-embed' | 'demo-rerank', string>> = {
  'demo-chat': '9c8d6caeb416ef99863caa06da8f3cca11db058de69594caf8bc5decd00f7c80',
  'demo-context': 'c2a697e40b9033397f4988e8d4753102dc7db528cc7bf974be35a0dccb5b0257',
  'demo-embed': '77304fd735ee025f493be3907d66f379c7626e5ce7fc74788ef97282c340bb74',
  'demo-rerank': '378f155570e6fc98284e72c52136427b0040d490f1de721a58579c7034b5860d',
};

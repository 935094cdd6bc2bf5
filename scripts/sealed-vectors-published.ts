// Published examples in sealed-v1.json, and the heads of requests it refuses. RFC 9180 appendix A.1.1 and the
// example of draft-ietf-ohai-chunked-ohttp-08, appendix A, are of AES-128-GCM: sealed bodies speak
// AES-256-GCM alone, and what runs these takes the AEAD from them.

/** DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode. */
export const RFC_9180_A1 = {
  aead: 'aes-128-gcm',
  info: '4f6465206f6e2061204772656369616e2055726e',
  private_key: '4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8',
  public_key: '3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d',
  enc: '37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431',
  plaintext: '4265617574792069732074727574682c20747275746820626561757479',
  chunks: [
    {
      aad: '436f756e742d30',
      sealed: 'f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a',
    },
    {
      aad: '436f756e742d31',
      sealed: 'af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab251c03d0c22a56b8ca42c2063b84',
    },
    {
      aad: '436f756e742d32',
      sealed: '498dfcabd92e8acedc281e85af1cb4e3e31c7dc394a1ca20e173cb72516491588d96a19ad4a683518973dcc180',
    },
  ],
  exports: [
    {
      context: '',
      length: 32,
      value: '3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee',
    },
  ],
} as const;

/** Its request is split over three chunks and its sections left out: here only the chunks are judged. */
export const DRAFT_EXAMPLE = {
  aead: 'aes-128-gcm',
  key_id: 1,
  private_key: '1c190d72acdbe4dbc69e680503bb781a932c70a12c8f3754434c67d8640d8698',
  public_key: '668eb21aace159803974a4c67f08b4152d29bed10735fd08f98ccdd6fe095708',
  request: '00034745540568747470730b6578616d706c652e636f6d012f',
  sealed_request:
    '010020000100018811eb457e100811c40a0aa71340a1b81d804bb986f736f2f566a7199761a0321c2ad24942d4d692563012f2980c8fef437a336b9b2fc938ef77a5834f1d2e33d8fd25577afe31bd1c79d094f76b6250ae6549b473ecd950501311001c6c1395d0ef7c1022297966307b8a7f',
  response: '0140c8',
  sealed_response:
    'bcce7f4cb921309ba5d62edf1769ef091179bf1cc87fa0e2c02de4546945aa3d1e4812b348b5bd4c594c16b6170b07b475845d1f3200ed9d8a796617a5b27265f4d73247f639',
} as const;

/** A request head, its fields as a section of known length. */
function head(lines: string, method = '\x03GET', path = '\x02/v'): string {
  return `\x00${method}\x05https\x00${path}${String.fromCharCode(lines.length)}${lines}`;
}

/** Heads no client may send: name, bytes as latin1. */
export const BHTTP_REFUSED: readonly (readonly [string, string])[] = [
  ['nothing', ''],
  ['a response', '\x01\x40\xc8\x00'],
  ['an unknown framing', '\x04\x03GET\x05https\x00\x02/v\x00'],
  ['cut in the control data', '\x00\x03GET\x05htt'],
  ['cut in the fields', head('\x01a\x01b').slice(0, -1)],
  ['a byte behind the fields', `${head('\x01a\x01b')}\x00`],
  ['fields beyond their section', '\x00\x03GET\x05https\x00\x02/v\x03\x01a\x01b'],
  ['an empty method', head('', '\x00')],
  ['a blank in the method', head('', '\x04GE T')],
  ['another scheme', '\x00\x03GET\x04http\x00\x02/v\x00'],
  ['an empty path', head('', '\x03GET', '\x00')],
  ['a path with its origin', head('', '\x03GET', '\x0bhttps://a/v')],
  ['a fragment', head('', '\x03GET', '\x04/v#a')],
  ['a blank in the path', head('', '\x03GET', '\x04/v a')],
  ['a line end in the path', head('', '\x03GET', '\x04/v\r\n')],
  ['a name in upper case', head('\x01A\x01b')],
  ['an empty name', head('\x00\x01b')],
  ['a pseudo field', head('\x05:path\x01b')],
  ['a carriage return in a value', head('\x01a\x02b\r')],
  ['a line end in a value', head('\x01a\x03b\nc')],
  ['a zero in a value', head('\x01a\x03b\x00c')],
  ['a blank before a value', head('\x01a\x02 b')],
  ['a field twice', head('\x01a\x01b\x01a\x01b')],
  ['two lengths', head('\x0econtent-length\x011\x0econtent-length\x011')],
  ['padding that is not zeros', head('\x09assay-pad\x0201')],
  ...[
    'host',
    'connection',
    'keep-alive',
    'te',
    'trailer',
    'expect',
    'transfer-encoding',
    'upgrade',
    'cookie',
    'forwarded',
    'x-forwarded-for',
    'x-forwarded-proto',
    'x-real-ip',
    'proxy-authorization',
    'proxy-connection',
  ].map((name) => [`the field ${name}`, head(`${String.fromCharCode(name.length)}${name}\x01b`)] as const),
];

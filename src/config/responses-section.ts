// Settings of stored responses. They are sealed with the key of `files.key`.

import { boolean, measured, operator, whole } from './fields.ts';

const MI_B = 1024 * 1024;
const MAX = Number.MAX_SAFE_INTEGER;

export const responsesSection = {
  store: measured(
    boolean(
      'whether `store: true` keeps a response, sealed, in the data folder, and `previous_response_id` goes on from it',
      false,
    ),
  ),
  expiry_days: measured(whole(1, 3650, 'a stored response is removed after so many days', 30)),
  max_per_key: operator(
    whole(1, 1_000_000, 'stored responses of one key; the oldest are removed for new ones', 1000),
  ),
  max_bytes_per_key: operator(
    whole(
      65_536,
      MAX,
      'bytes of the stored responses of one key; the oldest are removed for new ones',
      64 * MI_B,
    ),
  ),
  max_bytes: operator(
    whole(65_536, MAX, 'bytes of all stored responses; more are answered 507 storage_full', 1024 * MI_B),
  ),
} as const;

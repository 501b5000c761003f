# What does the C core declare, as far as the glue calls it? One block per header, in the order of the floors.
#
# Only declarations: nothing here has a body, and nothing needs the GIL. Of enumerations only the members in use are
# named. C's `bool` is declared as bint: Cython converts it to 0 or 1.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "tidelog/base.h" nogil:
    enum:
        TL_OK
        TL_EINVAL
        TL_ENOMEM
        TL_EIO
        TL_ENOSPC
        TL_ECORRUPT
        TL_ERANGE
        TL_ETOOLARGE
        TL_EAGAIN
        TL_ETIMEOUT
        TL_ELOCKED
        TL_ECLOSED
        TL_EFORKED
        TL_EFAILED
        TL_ETXNSTATE
        TL_EFENCED
        TL_ENOTFOUND
        TL_EDROPPED
        TL_ETURNED

    ctypedef struct tl_error:
        int code
        int sys_errno
        int64_t position
        const char *what
        char path[512]
        char detail[160]

    const char *tl_status_name(int code)
    void tl_put_be64(void *p, uint64_t v)


cdef extern from "tidelog/os.h" nogil:
    ctypedef struct tl_io:
        int (*futex_wait)(const uint32_t *word, uint32_t value, int64_t timeout_ns) noexcept nogil
        int64_t (*now_ms)() noexcept nogil
        int64_t (*coarse_ms)() noexcept nogil
        int64_t (*monotonic_ns)() noexcept nogil
        int (*random)(void *to, size_t size_bytes) noexcept nogil
        void *(*malloc)(size_t size_bytes) noexcept nogil
        void *(*realloc)(void *old, size_t size_bytes) noexcept nogil
        void (*free)(void *old) noexcept nogil

    const tl_io *tl_os


cdef extern from "tidelog/varint.h" nogil:
    enum:
        TL_VARINT32_MAX
    size_t tl_varint_size(int64_t v)
    uint8_t *tl_varint_put(uint8_t *p, int64_t v)


cdef extern from "tidelog/crc32c.h" nogil:
    uint32_t tl_crc32c(uint32_t crc, const void *p, size_t n)
    const char *tl_crc32c_name()


cdef extern from "tidelog/murmur2.h" nogil:
    uint32_t tl_murmur2(const void *key, size_t size_bytes)
    uint32_t tl_partition_of(uint32_t hash, uint32_t partitions)
    void tl_partition_slices(const uint8_t *const *keys, const int32_t *keys_bytes, size_t count, uint32_t partitions,
                             uint32_t *out)
    void tl_partition_rows(const uint8_t *keys, size_t stride, size_t key_bytes, bint strip, size_t count,
                           uint32_t partitions, uint32_t *out)


cdef extern from "tidelog/index.h" nogil:
    enum:
        TL_INDEX_ENTRY_BYTES
    void tl_index_lookup_raw(const uint8_t *entries, size_t count, int64_t base_offset, const int64_t *offsets,
                             size_t n, int64_t *positions)


cdef extern from "tidelog/clock.h" nogil:
    ctypedef struct tl_clock:
        int64_t monotonic_ms

    int64_t tl_clock_ms(tl_clock *clock)

cdef extern from "tidelog/batch.h" nogil:
    size_t tl_batch_bound(size_t count, size_t payload_bytes)

    enum:
        TL_BATCH_HEADER_BYTES
        TL_BATCH_MAX_BYTES

    ctypedef struct tl_message:
        const uint8_t *key
        const uint8_t *value
        const uint8_t *headers
        int32_t key_bytes
        int32_t value_bytes
        uint32_t headers_bytes
        uint32_t reserved
        int64_t timestamp_ms

    ctypedef struct tl_rows:
        const uint8_t *rows
        size_t stride
        size_t row_bytes
        size_t key_at
        size_t key_bytes
        bint strip_key
        int64_t timestamp_ms
        const uint32_t *pick

    ctypedef struct tl_batch_spec:
        int64_t producer_id
        int32_t base_sequence
        int16_t producer_epoch
        uint16_t attributes

    const tl_batch_spec tl_batch_plain

    size_t tl_batch_measure(const tl_message *messages, size_t count, size_t limit, size_t *size_bytes)
    size_t tl_batch_encode_records(uint8_t *out, const tl_message *messages, size_t count)
    size_t tl_batch_finish(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, size_t payload_bytes,
                           int32_t count, int64_t base_timestamp_ms, int64_t max_timestamp_ms)

    ctypedef struct tl_batch:
        int64_t base_offset
        int64_t base_timestamp_ms
        int64_t max_timestamp_ms
        uint32_t bytes
        int32_t last_offset_delta
        int32_t count
        uint16_t attributes

    unsigned tl_batch_codec(const tl_batch *b)

    ctypedef struct tl_record:
        int64_t offset
        int64_t timestamp_ms
        uint32_t value_at
        uint32_t key_at
        uint32_t headers_at
        int32_t value_bytes
        int32_t key_bytes
        uint32_t headers_bytes

    int tl_header_next(const uint8_t *base, size_t *at, size_t end, int32_t *left, uint32_t *name_at,
                       uint32_t *name_bytes, uint32_t *value_at, int32_t *value_bytes)


cdef extern from "tidelog/lock.h" nogil:
    ctypedef uint32_t tl_owner


cdef extern from "tidelog/offsets.h" nogil:
    enum:
        TL_OFFSETS_MAX_GROUP_BYTES

    ctypedef struct tl_offsets

    ctypedef struct tl_offset_word:
        int64_t offset
        uint32_t epoch
        uint32_t owner

    ctypedef struct tl_offset_view:
        uint32_t slot
        uint32_t group
        uint32_t partition
        uint8_t channel_id[16]
        tl_offset_word word
        int64_t time_ms

    int tl_offsets_group(tl_offsets *t, const void *name, size_t size_bytes, bint create, uint32_t *number,
                         tl_error *err)
    int tl_offsets_group_name(tl_offsets *t, uint32_t number, char *name, size_t *size_bytes, tl_error *err)
    enum:
        TL_OFFSETS_NOBODY

    ctypedef struct tl_offset_hints:
        uint32_t holder
        uint32_t assigned

    int tl_offsets_hints(const tl_offsets *t, uint32_t slot, tl_offset_hints *out)
    int tl_offsets_next(tl_offsets *t, uint32_t *cursor, tl_offset_view *view, tl_error *err)
    int tl_offsets_forget_group(tl_offsets *t, uint32_t number, tl_error *err)
    int tl_offsets_read(const tl_offsets *t, uint32_t slot, tl_offset_word *word, int64_t *time_ms)
    int tl_offsets_claim(tl_offsets *t, uint32_t slot, tl_offset_word expected, uint32_t owner, uint32_t *epoch)
    int tl_offsets_release(tl_offsets *t, uint32_t slot, uint32_t owner, uint32_t epoch)
    int tl_offsets_commit(tl_offsets *t, uint32_t slot, uint32_t owner, uint32_t epoch, int64_t offset, int64_t now_ms)
    int tl_offsets_set(tl_offsets *t, uint32_t slot, int64_t offset, int64_t now_ms, bint force)
    int tl_offsets_inspect(const tl_offsets *t, uint32_t slot, tl_error *err)


cdef extern from "tidelog/store.h" nogil:
    ctypedef struct tl_store
    ctypedef struct tl_partition

    ctypedef struct tl_store_options:
        int64_t flush_interval_ms
        int64_t lock_timeout_ms
        bint create
        bint look
        bint any_filesystem
        bint no_housekeeper

    enum:
        TL_STORE_JOINED
        TL_STORE_RECOVERED

    ctypedef struct tl_recovery:
        bint clean
        bint same_boot
        bint created
        uint32_t partitions
        uint32_t scanned_partitions
        uint64_t scanned_bytes
        uint64_t torn_bytes
        uint32_t repaired_locks
        uint32_t failed_partitions

    int tl_store_open(const char *path, const tl_store_options *options, tl_store **out, int *state,
                      tl_recovery *recovery, tl_error *err)
    int tl_store_ready(tl_store *store, tl_error *err)
    int tl_store_close(tl_store *store, tl_error *err)
    void tl_store_retain(tl_store *store)
    void tl_store_free(tl_store *store)
    bint tl_store_is_open(const tl_store *store)
    const char *tl_store_path(const tl_store *store)
    int tl_store_catalogue_lock(tl_store *store, tl_error *err)
    void tl_store_catalogue_unlock(tl_store *store)
    uint64_t tl_store_generation(const tl_store *store)
    void tl_store_bump_generation(tl_store *store)

    ctypedef struct tl_partition_config:
        uint8_t channel[16]
        uint32_t partition
        char directory[264]
        uint32_t segment_bytes
        int64_t segment_ms
        int64_t retention_ms
        int64_t retention_bytes
        uint32_t max_message_bytes
        bint retention_consumed
        uint32_t id_count
        int64_t id_age_ms

    int tl_store_create_partitions(tl_store *store, const tl_partition_config *configs, size_t count, uint32_t *slots,
                                   tl_error *err)
    int tl_store_configure_partitions(tl_store *store, const uint32_t *slots, size_t count,
                                      const tl_partition_config *config, tl_error *err)
    int tl_store_drop_partitions(tl_store *store, const uint32_t *slots, size_t count, tl_error *err)
    ctypedef int (*tl_each_partition)(void *context, uint32_t slot, const tl_partition_config *config) noexcept nogil
    int tl_store_each_partition(tl_store *store, void *context, tl_each_partition each)
    int tl_store_partition(tl_store *store, uint32_t slot, const uint8_t *channel, tl_partition **out, tl_error *err)
    void tl_partition_release(tl_partition *partition)
    int tl_store_sync(tl_store *store, tl_error *err)
    int tl_store_housekeep(tl_store *store, tl_error *err)
    ctypedef struct tl_turn:
        const uint32_t *word
        uint32_t seen

    int tl_store_wait(tl_store *store, tl_partition **partitions, const uint64_t *seen, size_t count,
                      int64_t timeout_ns, int64_t busy_ns, const tl_turn *turns, size_t turn_count,
                      const uint32_t *cancel, tl_error *err)
    void tl_store_wake(tl_store *store)
    tl_offsets *tl_store_offsets(tl_store *store)
    tl_owner tl_store_owner(const tl_store *store)
    bint tl_store_owner_alive(tl_store *store, tl_owner owner)
    uint32_t tl_store_owner_pid(tl_store *store, tl_owner owner)
    int tl_store_forget_channel(tl_store *store, const uint8_t *channel, tl_error *err)
    int tl_store_offset_slot(tl_store *store, const char *group, size_t group_bytes, const uint8_t *channel,
                             uint32_t partition, bint create, uint32_t *slot, tl_error *err)
    int tl_store_sync_offsets(tl_store *store, tl_error *err)

    ctypedef struct tl_process_info:
        uint32_t slot
        uint32_t pid
        bint self "self"
        int64_t started_ms

    size_t tl_store_processes(tl_store *store, tl_process_info *out, size_t room)


cdef extern from "tidelog/producers.h" nogil:
    ctypedef struct tl_producer:
        int64_t producer_id

cdef extern from "tidelog/transactions.h" nogil:
    ctypedef struct tl_transaction:
        int16_t epoch
        int64_t deadline_ns

    int tl_transaction_begin(tl_producer *producer, int64_t timeout_ms, tl_transaction *out, tl_error *err)
    int tl_transaction_offset(tl_transaction *transaction, uint32_t slot, tl_owner owner, uint32_t lease_epoch,
                              int64_t offset, tl_error *err)
    int tl_transaction_commit(tl_transaction *transaction, bint synced, tl_error *err)
    int tl_transaction_abort(tl_transaction *transaction, tl_error *err)
    int tl_transactions_finish_slot(tl_store *store, uint32_t offset_slot, tl_error *err)
    int tl_partition_stable_end(tl_partition *partition, int64_t *offset, tl_error *err)

cdef extern from "tidelog/ids.h" nogil:
    ctypedef struct tl_message_id:
        uint64_t hash[2]

    ctypedef struct tl_ids_info:
        uint32_t ids
        uint32_t slots
        bint complete

    void tl_ids_hash(uint64_t key, const void *id, size_t size_bytes, tl_message_id *out)
    uint64_t tl_ids_key(tl_partition *partition)
    int tl_ids_describe(tl_partition *partition, tl_ids_info *out, tl_error *err)

cdef extern from "tidelog/log.h" nogil:
    ctypedef struct tl_chunk:
        uint8_t *bytes
        size_t used
        size_t room
        tl_record *records
        size_t count
        size_t capacity

    ctypedef int (*tl_unpack)(void *context, tl_chunk *chunk, const tl_batch *batch, size_t payload_at,
                              size_t payload_bytes, tl_error *err) noexcept nogil

    ctypedef struct tl_appended:
        int64_t base_offset
        int64_t next_offset
        uint64_t tail
        size_t answered
        size_t duplicates
        int32_t sequence

    ctypedef struct tl_producing:
        const tl_producer *producer
        tl_transaction *transaction
        int16_t epoch
        int32_t sequence

    ctypedef struct tl_append:
        const tl_message *messages
        const tl_rows *rows
        uint8_t *encoded
        size_t encoded_bytes
        size_t first
        size_t count
        int64_t max_timestamp_ms
        size_t bound_bytes
        const tl_batch_spec *spec
        const tl_producing *producing
        const tl_message_id *ids
        tl_unpack unpack
        void *unpack_context
        bint no_ids
        int64_t *offsets
        uint8_t *duplicates

    enum:
        TL_DUPLICATE
        TL_DUPLICATE_OF_THIS_CALL

    enum:
        TL_APPEND_TRY
        TL_APPEND_THROUGH_FILE

    int tl_partition_append(tl_partition *partition, const tl_append *what, unsigned flags, tl_appended *result,
                            tl_error *err)
    int tl_partition_append_one(tl_partition *partition, const tl_message *message, unsigned flags,
                                tl_appended *result, tl_error *err)
    void tl_partition_expect_id(tl_partition *partition, const void *id, size_t size_bytes, tl_message_id *out)
    int tl_partition_append_one_id(tl_partition *partition, const tl_message *message, const tl_message_id *id,
                                   int64_t now_ms, tl_appended *result, tl_error *err)
    int tl_partition_append_one_named(tl_partition *partition, const tl_message *message, const tl_producer *producer,
                                      tl_appended *result, tl_error *err)
    bint tl_partition_is_locked(const tl_partition *partition)
    int tl_partition_sync(tl_partition *partition, uint64_t tail, int64_t timeout_ns, tl_error *err)
    bint tl_partition_is_synced(const tl_partition *partition, uint64_t tail)

    ctypedef struct tl_bounds:
        int64_t log_start
        int64_t log_end
        uint64_t tail

    int tl_partition_bounds(tl_partition *partition, tl_bounds *out, tl_error *err)
    uint64_t tl_partition_tail(const tl_partition *partition)

    ctypedef struct tl_cursor:
        int64_t offset
        uint64_t place
        int64_t batch_offset
        bint located

    void tl_chunk_clear(tl_chunk *chunk)
    void tl_chunk_free(tl_chunk *chunk)
    int tl_chunk_reserve(tl_chunk *chunk, size_t more_bytes, size_t more_records, tl_error *err)

    enum:
        TL_READ_UNCOMMITTED
        TL_READ_TRY

    ctypedef struct tl_read_end:
        bint compressed
        size_t batch_at
        tl_batch batch
        int64_t skipped_to

    int tl_partition_read(tl_partition *partition, tl_cursor *cursor, tl_chunk *chunk, size_t max_records,
                          size_t max_bytes, unsigned flags, tl_read_end *end, tl_error *err)
    int tl_chunk_add(tl_chunk *chunk, size_t at, size_t size_bytes, const tl_batch *batch, int64_t from_offset,
                     tl_error *err)
    int tl_partition_read_rows(tl_partition *partition, tl_cursor *cursor, size_t row_bytes, uint8_t *rows, size_t room,
                               int64_t *offsets, int64_t *timestamps_ms, tl_chunk *keys, size_t *taken, size_t *need,
                               unsigned flags, tl_read_end *end, tl_error *err)
    int tl_partition_read_at(tl_partition *partition, const int64_t *offsets, size_t count, tl_chunk *chunk,
                             unsigned flags, tl_unpack unpack, void *context, size_t *failed, tl_error *err)
    int tl_partition_find(tl_partition *partition, const int64_t *timestamps_ms, size_t count, int64_t *offsets,
                          tl_unpack unpack, void *context, tl_error *err)
    int tl_partition_count(tl_partition *partition, int64_t from_offset, unsigned flags, int64_t *messages, tl_error *err)
    int tl_partition_trim(tl_partition *partition, int64_t before, tl_error *err)
    int tl_partition_retain(tl_partition *partition, int64_t now_ms, tl_error *err)

    ctypedef struct tl_partition_info:
        int64_t log_start
        int64_t log_end
        int64_t max_timestamp_ms
        int64_t lease
        uint64_t bytes
        uint64_t allocated_bytes
        uint64_t tail
        uint64_t synced
        uint32_t segments
        uint32_t first_ordinal
        int failed

    int tl_partition_describe(tl_partition *partition, tl_partition_info *out, tl_error *err)

    ctypedef void (*tl_finding)(void *context, const char *file, int64_t position, const char *what,
                                int64_t first_offset, int64_t next_offset) noexcept nogil
    ctypedef void (*tl_progress)(void *context, uint64_t size_bytes, uint64_t batches,
                                 uint64_t messages) noexcept nogil

    ctypedef struct tl_check_report:
        void *context
        tl_finding finding
        tl_progress progress

    int tl_store_check(tl_store *store, const tl_check_report *report, tl_error *err)
    int tl_partition_check(tl_partition *partition, const tl_check_report *report, tl_error *err)


cdef extern from "tidelog/producers.h" nogil:
    int32_t tl_sequence_after(int32_t sequence, int64_t count)
    int tl_producer_open(tl_store *store, const char *name, size_t bytes, tl_producer *out, tl_error *err)
    void tl_producer_close(tl_producer *producer)
    bint tl_producer_is_fenced(const tl_producer *producer)
    int16_t tl_producer_epoch(const tl_producer *producer)
    int tl_producer_next(const tl_producer *producer, tl_partition *partition, int32_t *sequence, tl_error *err)
    int tl_producer_last(const tl_producer *producer, tl_partition *partition, int64_t *offset, tl_error *err)

# What do Cython and the core call the same, of groups of consumers and of skew?
#
# Beside ctidelog.pxd, whose types these use.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from ctidelog cimport tl_error, tl_owner, tl_partition, tl_store


cdef extern from "tidelog/groups.h" nogil:
    enum:
        TL_MEMBERS
        TL_MEMBER_CHANNELS

    ctypedef struct tl_member:
        uint32_t index
        uint32_t uses
        uint32_t row
        uint32_t number

    ctypedef struct tl_member_options:
        const char *name
        size_t name_bytes
        const char *strategy
        size_t strategy_bytes
        const uint32_t *channels
        size_t channel_count
        int64_t max_processing_ns
        int64_t away_ns

    ctypedef struct tl_group_view:
        uint64_t version
        uint64_t assigned
        size_t count

    ctypedef struct tl_member_info:
        uint64_t id
        uint32_t index
        uint32_t pid
        bint away
        uint32_t channel_count
        uint32_t name_bytes
        uint32_t channels[64]
        char name[96]
        char strategy[24]

    uint64_t tl_member_id(const tl_member *member)
    int tl_group_join(tl_store *store, const char *group, size_t group_bytes, const tl_member_options *options,
                      tl_member *out, tl_error *err)
    int tl_member_leave(tl_store *store, const tl_member *member, bint keep, tl_error *err)
    bint tl_member_is_active(tl_store *store, const tl_member *member)
    int tl_member_is_fenced(tl_store *store, const tl_member *member, const char *name, size_t name_bytes,
                            tl_error *err)
    void tl_member_handles(tl_store *store, const tl_member *member, int64_t since_ns)
    const uint32_t *tl_member_turn(tl_store *store, const tl_member *member)
    uint64_t tl_member_version(tl_store *store, const tl_member *member)
    uint64_t tl_member_assigned(tl_store *store, const tl_member *member)
    void tl_member_turned(tl_store *store, const tl_member *member)
    int tl_group_view_of(tl_store *store, uint32_t number, tl_group_view *view, tl_member_info *infos, tl_error *err)
    int tl_group_install(tl_store *store, const tl_member *member, uint64_t version, const uint32_t *slots,
                         const int32_t *members, size_t count, tl_error *err)
    int tl_group_targets(tl_store *store, const tl_member *member, const uint32_t *slots, int32_t *members,
                         size_t count, tl_error *err)
    int tl_member_claim(tl_store *store, const tl_member *member, uint32_t slot, uint32_t *epoch)
    int tl_groups_sweep(tl_store *store)


cdef extern from "tidelog/skew.h" nogil:
    enum:
        TL_SKEW_KEY_BYTES

    ctypedef struct tl_skew:
        pass

    ctypedef struct tl_skew_key:
        uint32_t count
        uint32_t error
        uint32_t partition
        uint32_t key_bytes
        uint8_t key[32]

    ctypedef struct tl_skew_view:
        uint32_t samples
        uint32_t keyless
        int64_t since_ms
        uint32_t keys
        tl_skew_key key[128]

    int tl_skew_open(tl_partition *first, tl_skew **out, tl_error *err)
    void tl_skew_close(tl_skew *skew)
    int tl_skew_note(tl_skew *skew, const uint8_t *key, size_t key_bytes, uint32_t partition)
    int tl_skew_top(tl_skew *skew, uint32_t *certain, uint32_t *samples)
    int tl_skew_look(tl_partition *first, tl_skew_view *out, tl_error *err)

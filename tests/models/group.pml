/* Does a partition have one consumer at a time, and does a commit of one that has lost it fail? SHARING rules 26, 36 to 38;
 * native/src/offsets.c, assignment.c, groups.c, sweep.c.
 *
 * Three consumers, the first two in one process (the owner in the word is the same for both), and one partition. They join,
 * are expelled though they live, are followed by another one in their row, hand over, die. What a consumer reads it handles
 * between its claim and its commit. */
#define RUNNING 3
#define NEWCOMERS 0
#ifndef CRASHES
#define CRASHES 1 /* there are two processes */
#endif
#include "processes.inc"
#define ROWS 2
#define NO_ROW 7
#define process_of(who) ((who) / 2) /* consumers 0 and 1 in process 0, consumer 2 in process 1 */
#define is_dead(who) (!holds_byte[process_of(who)])

byte owner, epoch, committed;         /* the 16-byte word of the slot: read and swapped in one step */
byte holder_epoch, holder_row, holder_uses; /* slot->holder, one word beside it */
byte assigned = NO_ROW;               /* slot->assigned */
byte version = 1, plan;               /* group->version, group->assigned */
bool is_in[ROWS];                    /* row->state */
byte uses[ROWS];                      /* row->uses */
byte lock;                            /* header->groups_lock: consumer + 1 */
byte keeper;                          /* what is true: whose the partition is, + 1; for the assertions */
byte row_of[3], uses_of[3];           /* what each consumer knows of itself: tl_member */

#define is_member(who) (uses_of[who] != 0 && is_in[row_of[who]] && uses[row_of[who]] == uses_of[who])

#define lock_is_free (lock == 0 || is_dead(lock - 1))

inline enter() { /* groups.c:tl_groups_lock, tl_groups_repair: in the step that takes the lock */
#ifndef BUG_GROUPS_NOT_REPAIRED
    if :: lock != 0 -> version++; reached(1) :: else fi;
#endif
    lock = me + 1
}

/* A plan that seems to be in force names a member. */
inline leave() { assert(plan != version || assigned == NO_ROW || is_in[assigned]); lock = 0 }

inline join() { /* groups.c:join_locked */
    atomic { lock_is_free -> enter();
        if :: !is_in[0] -> row_of[me] = 0 :: is_in[0] && !is_in[1] -> row_of[me] = 1 :: else fi;
        if :: !is_in[row_of[me]] -> uses[row_of[me]]++; uses_of[me] = uses[row_of[me]]; is_in[row_of[me]] = true :: else fi };
    atomic { version++; leave() }
}

inline install() { /* groups.c:tl_group_view_of, then assignment.c:tl_group_install */
    atomic {
        seen = version;
        if :: is_in[0] -> chosen = 0 :: is_in[1] -> chosen = 1 :: !is_in[0] && !is_in[1] -> chosen = NO_ROW fi
    };
    atomic { lock_is_free -> enter();
#ifdef BUG_INSTALL_VERSION_UNCHECKED
        seen = version;
#endif
        if :: is_member(me) && version == seen -> plan = 0 :: else -> seen = 0 fi };
    if :: seen != 0 -> assigned = chosen :: else fi; /* store_plan */
    atomic { if :: seen != 0 -> plan = seen :: else fi; leave(); seen = 0; chosen = 0 }
}

/* assignment.c:holder_is_gone: only what was stored for this very lease says who has it */
#ifdef BUG_HOLDER_OF_ANY_EPOCH
#define holder_known true
#else
#define holder_known (h_epoch == seen_epoch)
#endif
#define holder_gone (holder_known && (!is_in[h_row] || uses[h_row] != h_uses || (h_row == row_of[me] && h_uses == uses_of[me])))

inline claim() { /* assignment.c:tl_member_claim */
    atomic { h_epoch = holder_epoch; h_row = holder_row; h_uses = holder_uses }; /* the holder first */
    atomic { seen_owner = owner; seen_epoch = epoch; at = committed };
    if
    :: !is_member(me) || assigned != row_of[me] || plan == 0 || plan != version
    :: else -> /* two looks: at the membership of the holder and at the byte of its process */
        if
#ifndef BUG_LIVE_HOLDER_IGNORED
        :: seen_owner != 0 && !holder_gone && holds_byte[seen_owner - 1] -> reached(2)
#endif
        :: else ->
            atomic {
                if
                :: owner == seen_owner && epoch == seen_epoch && committed == at -> /* offsets.c:tl_offsets_claim */
                    if :: keeper != 0 -> assert(is_dead(keeper - 1) || !is_member(keeper - 1) || keeper == me + 1); reached(3)
                       :: else fi;
#ifndef BUG_EPOCH_NOT_BUMPED
                    epoch++;
#endif
                    owner = process_of(me) + 1; mine = epoch; keeper = me + 1; has = true
                :: else -> reached(4)
                fi
            };
            if :: has -> atomic { holder_epoch = mine; holder_row = row_of[me]; holder_uses = uses_of[me] } :: else fi
        fi
    fi;
    atomic { h_epoch = 0; h_row = 0; h_uses = 0; seen_owner = 0; seen_epoch = 0 }
}

inline commit() { /* offsets.c:tl_offsets_commit: the lease is compared in the step that stores */
    atomic {
        if
#ifdef BUG_ZOMBIE_COMMIT_ACCEPTED
        :: true ->
#else
        :: owner == process_of(me) + 1 && epoch == mine ->
#endif
            assert(keeper == me + 1 && committed == at); committed = at + 1; at++
        :: else -> reached(5); has = false /* Fenced */
        fi
    }
}

inline release() { /* offsets.c:tl_offsets_release */
    atomic {
        if :: owner == process_of(me) + 1 && epoch == mine -> owner = 0; assert(keeper == me + 1); keeper = 0 :: else fi;
        has = false
    }
}

proctype Consumer(byte me) {
    byte seen, chosen, h_epoch, h_row, h_uses, seen_owner, seen_epoch, at, mine;
    bool has;
    {
        if
        :: skip
        :: atomic { me == 2 && lock_is_free -> /* sweep.c:remove_under_lock: whoever is past its max_processing */
               enter();
               if :: is_in[0] -> is_in[0] = false; reached(6) :: is_in[1] -> is_in[1] = false :: else fi };
            atomic { version++; leave() } /* groups.c:tl_member_remove */
        fi;
        join();
        install();
        claim();
        if :: has -> commit(); if :: release() :: has = false fi :: else fi; /* it may lose sight of its lease */
    } unless { dead[process_of(me)] };
    atomic {
        has = false; seen = 0; chosen = 0; h_epoch = 0; h_row = 0; h_uses = 0; seen_owner = 0; seen_epoch = 0; at = 0; mine = 0;
        running--
    }
}

init { atomic { holds_byte[0] = true; holds_byte[1] = true; run Consumer(0); run Consumer(1); run Consumer(2) } }

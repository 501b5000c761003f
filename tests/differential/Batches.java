import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Random;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.DefaultRecordBatch;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.FileLogInputStream;
import org.apache.kafka.common.record.internal.FileRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.utils.ByteBufferOutputStream;

/**
 * What do Apache Kafka's own classes write as record batches, and what do they read in files of ours?
 *
 *   Batches write SEED RECORDS BATCHES_OUT RECORDS_OUT   batches of every codec and kind, and the records that are in them
 *   Batches read RECORDS_OUT FILE...                     checks every batch of the files, and what their records are
 *
 * A file of records is a sequence of offset i64, timestamp i64, key, value, header count i32, and per header name and
 * value; a string of bytes is its length i32 (-1: null) and the bytes. All big-endian, as tests/differential/messages.py
 * reads it. Offsets written are those of a log that takes the batches one after the other from offset 0 on.
 */
public final class Batches {
    private static final byte MAGIC = RecordBatch.MAGIC_VALUE_V2;
    private static final int HUGE_BYTES = 1_500_000;

    private final Random random;
    private final DataOutputStream batches;
    private final DataOutputStream records;
    private long nextOffset = 0;

    private Batches(long seed, DataOutputStream batches, DataOutputStream records) {
        this.random = new Random(seed);
        this.batches = batches;
        this.records = records;
    }

    public static void main(String[] arguments) throws IOException {
        if (arguments.length == 5 && arguments[0].equals("write")) {
            try (DataOutputStream batches = open(arguments[3]); DataOutputStream records = open(arguments[4])) {
                new Batches(Long.parseLong(arguments[1]), batches, records).write(Integer.parseInt(arguments[2]));
            }
        } else if (arguments.length >= 3 && arguments[0].equals("read")) {
            try (DataOutputStream records = open(arguments[1])) {
                for (int i = 2; i < arguments.length; i++)
                    read(new File(arguments[i]), records);
            }
        } else {
            System.err.println("usage: Batches write SEED RECORDS BATCHES_OUT RECORDS_OUT | Batches read RECORDS_OUT FILE...");
            System.exit(2);
        }
    }

    private static DataOutputStream open(String path) throws IOException {
        return new DataOutputStream(new BufferedOutputStream(new FileOutputStream(path), 1 << 20));
    }

    // --- writing ---

    private void write(int wanted) throws IOException {
        int written = 0;
        int round = 0;
        while (written < wanted) {
            int count = Math.min(wanted - written, random.nextInt(8) == 0 ? 200 + random.nextInt(600) : 1 + random.nextInt(40));
            batch(count, compression(round % 5), round % 97 == 40);
            written += count;
            if (round % 13 == 5)
                empty();
            round++;
        }
    }

    private Compression compression(int codec) {
        return switch (codec) {
            case 1 -> Compression.gzip().level(1 + random.nextInt(9)).build();
            case 2 -> Compression.snappy().build();
            case 3 -> Compression.lz4().level(1 + random.nextInt(17)).build();
            case 4 -> Compression.zstd().level(1 + random.nextInt(9)).build();
            default -> Compression.NONE;
        };
    }

    private void batch(int count, Compression compression, boolean huge) throws IOException {
        boolean appendTime = random.nextInt(6) == 0;
        boolean transactional = random.nextInt(6) == 0;
        boolean idempotent = transactional || random.nextInt(4) == 0;
        boolean compacted = random.nextInt(4) == 0;
        long producerId = idempotent ? random.nextInt(1 << 30) : RecordBatch.NO_PRODUCER_ID;
        short epoch = idempotent ? (short) random.nextInt(1 << 15) : RecordBatch.NO_PRODUCER_EPOCH;
        // Near the end, where sequence numbers begin again at 0, too.
        int sequence = !idempotent ? RecordBatch.NO_SEQUENCE
            : random.nextInt(4) == 0 ? Integer.MAX_VALUE - random.nextInt(10) : random.nextInt(1 << 30);
        long now = 1_700_000_000_000L + random.nextInt(1 << 30);
        ByteBufferOutputStream out = new ByteBufferOutputStream(1 << 16);
        MemoryRecordsBuilder builder = new MemoryRecordsBuilder(out, MAGIC, compression,
            appendTime ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME, nextOffset, now, producerId, epoch, sequence,
            transactional, false, random.nextInt(100) - 1, Integer.MAX_VALUE);
        long offset = nextOffset;
        for (int i = 0; i < count; i++) {
            if (compacted)
                offset += random.nextInt(5);
            long timestamp = random.nextInt(50) == 0 ? random.nextInt(1 << 30) : now + random.nextInt(20_000) - 10_000;
            byte[] key = random.nextInt(4) == 0 ? null : bytes(random.nextInt(20));
            byte[] value = random.nextInt(10) == 0 ? null : bytes(huge && i == 0 ? HUGE_BYTES : length());
            Header[] headers = headers();
            builder.appendWithOffset(offset, timestamp, key, value, headers);
            record(records, offset, appendTime ? now : timestamp, key, value, headers);
            offset++;
        }
        if (compacted) { // the last records are gone as well, and the batch still says where it ended
            offset += random.nextInt(5);
            builder.overrideLastOffset(offset - 1);
        }
        put(builder.build().buffer());
        nextOffset = offset;
        if (transactional) {
            // Committed: what it wrote is among the records that are expected. Aborting is the business of whoever keeps the
            // state of transactions, and these batches are put into the log without it.
            EndTransactionMarker marker = new EndTransactionMarker(ControlRecordType.COMMIT, random.nextInt(1000));
            put(MemoryRecords.withEndTransactionMarker(nextOffset, now, 3, producerId, epoch, marker).buffer());
            nextOffset++;
        }
    }

    /** A batch whose records compaction has all taken. */
    private void empty() throws IOException {
        long lastOffset = nextOffset + random.nextInt(1000);
        ByteBuffer buffer = ByteBuffer.allocate(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        DefaultRecordBatch.writeEmptyHeader(buffer, MAGIC, random.nextInt(1000), (short) 3, random.nextInt(1000), nextOffset, lastOffset, 7,
            TimestampType.CREATE_TIME, 1_700_000_000_000L, false, false);
        buffer.flip();
        put(buffer);
        nextOffset = lastOffset + 1;
    }

    private void put(ByteBuffer buffer) throws IOException {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        batches.write(bytes);
    }

    private int length() {
        int kind = random.nextInt(100);
        return kind == 0 ? random.nextInt(20_000) : kind < 5 ? 0 : random.nextInt(300);
    }

    /** Half of them can be compressed. */
    private byte[] bytes(int length) {
        byte[] bytes = new byte[length];
        random.nextBytes(bytes);
        if (random.nextBoolean())
            for (int i = 0; i < length; i++)
                bytes[i] = (byte) ('a' + (bytes[i] & 3));
        return bytes;
    }

    private Header[] headers() {
        Header[] headers = new Header[random.nextInt(4) == 0 ? 1 + random.nextInt(4) : 0];
        String[] names = {"", "trace", "träger", "a", "a", "漢字"};
        for (int i = 0; i < headers.length; i++)
            headers[i] = new RecordHeader(names[random.nextInt(names.length)], random.nextInt(4) == 0 ? null : bytes(random.nextInt(30)));
        return headers;
    }

    // --- reading ---

    private static void read(File file, DataOutputStream out) throws IOException {
        try (FileRecords all = FileRecords.open(file, false)) {
            long end = 0;
            for (FileLogInputStream.FileChannelRecordBatch batch : all.batches()) {
                batch.ensureValid();
                if (batch.magic() != MAGIC)
                    throw new IOException(file + ": magic " + batch.magic() + " at " + end);
                int count = 0;
                long last = batch.baseOffset() - 1;
                long newest = RecordBatch.NO_TIMESTAMP;
                for (Record record : batch) {
                    record.ensureValid();
                    if (record.offset() <= last || record.offset() > batch.lastOffset())
                        throw new IOException(file + ": offset " + record.offset() + " after " + last + " in the batch at " + end);
                    last = record.offset();
                    newest = Math.max(newest, record.timestamp());
                    count++;
                    if (!batch.isControlBatch())
                        record(out, record.offset(), record.timestamp(), array(record.key()), array(record.value()), record.headers());
                }
                if (batch.countOrNull() != count || count > 0 && batch.maxTimestamp() != newest)
                    throw new IOException(file + ": the header of the batch at " + end + " says " + batch.countOrNull() + " records up to "
                        + batch.maxTimestamp() + " ms, there are " + count + " up to " + newest);
                end += batch.sizeInBytes();
            }
            if (end != file.length())
                throw new IOException(file + ": " + (file.length() - end) + " bytes after the last batch, at " + end);
        }
    }

    private static byte[] array(ByteBuffer buffer) {
        if (buffer == null)
            return null;
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return bytes;
    }

    private static void record(DataOutputStream out, long offset, long timestamp, byte[] key, byte[] value, Header[] headers)
        throws IOException {
        out.writeLong(offset);
        out.writeLong(timestamp);
        string(out, key);
        string(out, value);
        out.writeInt(headers.length);
        for (Header header : headers) {
            string(out, header.key().getBytes(java.nio.charset.StandardCharsets.UTF_8));
            string(out, header.value());
        }
    }

    private static void string(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes == null ? -1 : bytes.length);
        if (bytes != null)
            out.write(bytes);
    }
}

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Predicts the rows of a MySQL table by a model server and writes the predictions to another one.
 *
 * <p>In plain Java 17 what Spring Batch calls a chunk-oriented step: read, ask and write so many
 * rows, commit them together with how far the job is, and continue. A job that ended in the middle is
 * restarted after the last committed chunk. A row that the server refuses is skipped, with the
 * reason, up to a limit.
 */
public final class ScoreTable {
    private static final Set<Integer> TRIED_AGAIN = Set.of(408, 429, 500, 502, 503, 504);
    private static final Set<Integer> REFUSED = Set.of(400, 422);
    private static final long FIRST_WAIT_MILLIS = 250;
    private static final long LONGEST_WAIT_MILLIS = 5000;
    private static final Pattern INPUTS = Pattern.compile("\"inputs\"\\s*:\\s*\\[(.*?)\\]\\s*,\\s*\"outputs\"");
    private static final Pattern TENSOR =
            Pattern.compile("\"name\"\\s*:\\s*\"([^\"]+)\"\\s*,\\s*\"datatype\"\\s*:\\s*\"([^\"]+)\"");
    private static final Pattern DATA = Pattern.compile("\"data\"\\s*:\\s*\\[([^\\]]*)\\]");
    private static final Pattern VERSION = Pattern.compile("\"model_version\"\\s*:\\s*\"([^\"]*)\"");
    private static final Pattern DETAIL =
            Pattern.compile("\"(?:detail|error)\"\\s*:\\s*\"((?:[^\"\\\\]|\\\\.)*)\"");

    /** A column of the model. */
    private record Input(String name, boolean isNumber) {}

    /** Values in the order of the inputs; null where one is missing. */
    private record Row(long id, List<Object> values) {}

    /** What becomes of a row: its prediction and the version that made it, or why it is skipped. */
    private record Outcome(Row row, double prediction, String version, String refusal) {}

    /** The server refuses rows as they are. */
    private static final class Refused extends Exception {
        private static final long serialVersionUID = 1L;

        Refused(String reason) {
            super(reason);
        }
    }

    private final HttpClient http =
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1)
                    .connectTimeout(Duration.ofSeconds(5)).build();
    private final String model = need("MODEL_URL");
    private final String output = or("OUTPUT", "probability");
    private final String source = named("SOURCE_TABLE");
    private final String target = named("TARGET_TABLE");
    private final int chunkRows = Integer.parseInt(or("CHUNK_ROWS", "500"));
    private final int skipLimit = Integer.parseInt(or("SKIP_LIMIT", "10"));
    private final Duration patience = Duration.ofSeconds(Long.parseLong(or("PATIENCE_SECONDS", "120")));

    public static void main(String[] arguments) {
        try {
            new ScoreTable().run();
        } catch (Refused | IOException | SQLException | InterruptedException error) {
            System.err.println("error: " + error.getMessage());
            System.exit(1);
        }
    }

    private void run() throws Refused, IOException, InterruptedException, SQLException {
        List<Input> inputs = inputs();
        try (Connection database =
                DriverManager.getConnection(need("JDBC_URL"), need("DB_USER"), or("DB_PASSWORD", ""))) {
            makeTables(database);
            database.setAutoCommit(false);
            long after = progress(database);
            long skipped = count(database, target + "_skipped");
            long written = 0;
            for (List<Row> chunk = read(database, inputs, after);
                    !chunk.isEmpty();
                    chunk = read(database, inputs, after)) {
                List<Outcome> outcomes = ask(inputs, chunk);
                skipped += outcomes.stream().filter(each -> each.refusal() != null).count();
                if (skipped > skipLimit) {
                    database.rollback();
                    String last = outcomes.stream().filter(each -> each.refusal() != null)
                            .map(each -> "row " + each.row().id() + ": " + each.refusal())
                            .reduce((first, second) -> second).orElse("");
                    throw new Refused(skipped + " rows are refused, more than " + skipLimit + "; " + last);
                }
                after = chunk.get(chunk.size() - 1).id();
                write(database, outcomes, after);
                written += outcomes.size();
            }
            System.out.println(written + " rows, " + skipped + " skipped in all");
        }
    }

    /** The model's columns, as the server describes them. */
    private List<Input> inputs() throws Refused, IOException, InterruptedException {
        Matcher listed = INPUTS.matcher(send(HttpRequest.newBuilder(URI.create(model)).GET()));
        if (!listed.find()) {
            throw new IOException(model + " does not describe its inputs");
        }
        List<Input> found = new ArrayList<>();
        for (Matcher each = TENSOR.matcher(listed.group(1)); each.find(); ) {
            found.add(new Input(each.group(1), !each.group(2).equals("BYTES")));
        }
        return found;
    }

    private List<Row> read(Connection database, List<Input> inputs, long after) throws SQLException {
        String columns = inputs.stream().map(each -> quoted(each.name())).collect(Collectors.joining(", "));
        String query = "SELECT id, " + columns + " FROM " + quoted(source) + " WHERE id > ? ORDER BY id LIMIT ?";
        List<Row> rows = new ArrayList<>(chunkRows);
        try (PreparedStatement statement = database.prepareStatement(query)) {
            statement.setLong(1, after);
            statement.setInt(2, chunkRows);
            try (ResultSet found = statement.executeQuery()) {
                while (found.next()) {
                    List<Object> values = new ArrayList<>(inputs.size());
                    for (int i = 0; i < inputs.size(); i++) {
                        Object value = inputs.get(i).isNumber()
                                ? (Object) found.getDouble(i + 2) : found.getString(i + 2);
                        values.add(found.wasNull() ? null : value);
                    }
                    rows.add(new Row(found.getLong(1), values));
                }
            }
        }
        return rows;
    }

    /** Outcomes of rows; where the server refuses some, halves are asked until it is known which. */
    private List<Outcome> ask(List<Input> inputs, List<Row> rows) throws IOException, InterruptedException {
        String body = body(inputs, rows);
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(model + "/infer"))
                .header("content-type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body));
        try {
            return outcomes(rows, send(request));
        } catch (Refused refused) {
            if (rows.size() == 1) {
                return List.of(new Outcome(rows.get(0), 0, null, refused.getMessage()));
            }
            List<Outcome> both = new ArrayList<>(ask(inputs, rows.subList(0, rows.size() / 2)));
            both.addAll(ask(inputs, rows.subList(rows.size() / 2, rows.size())));
            return both;
        }
    }

    private List<Outcome> outcomes(List<Row> rows, String answer) throws IOException {
        Matcher data = DATA.matcher(answer);
        Matcher version = VERSION.matcher(answer);
        String[] values = data.find() ? data.group(1).split(",") : new String[0];
        if (values.length != rows.size() || !version.find()) {
            throw new IOException(model + " answers " + values.length + " values to " + rows.size() + " rows");
        }
        List<Outcome> found = new ArrayList<>(rows.size());
        for (int i = 0; i < values.length; i++) {
            found.add(new Outcome(rows.get(i), Double.parseDouble(values[i].trim()), version.group(1), null));
        }
        return found;
    }

    /** The body of an answer; another try is made after a wait with jitter, or as long as it asks. */
    private String send(HttpRequest.Builder request) throws Refused, IOException, InterruptedException {
        String token = or("TOKEN", "");
        if (!token.isEmpty()) {
            request.header("authorization", "Bearer " + token);
        }
        HttpRequest sent = request.timeout(Duration.ofSeconds(30)).build();
        long until = System.nanoTime() + patience.toNanos();
        for (long wait = FIRST_WAIT_MILLIS; ; wait = Math.min(2 * wait, LONGEST_WAIT_MILLIS)) {
            String failure;
            long asked = 0;
            try {
                HttpResponse<String> answer = http.send(sent, HttpResponse.BodyHandlers.ofString());
                if (answer.statusCode() == 200) {
                    return answer.body();
                }
                failure = "HTTP " + answer.statusCode() + ": " + detail(answer.body());
                if (REFUSED.contains(answer.statusCode())) {
                    throw new Refused(failure);
                }
                if (!TRIED_AGAIN.contains(answer.statusCode())) {
                    throw new IllegalStateException(failure);
                }
                asked = answer.headers().firstValue("retry-after").filter(text -> text.matches("\\d{1,6}"))
                        .map(text -> Long.parseLong(text) * 1000).orElse(0L);
            } catch (IllegalStateException error) {
                throw new IOException(sent.uri() + ": " + error.getMessage());
            } catch (IOException error) {
                failure = error.getClass().getSimpleName() + ": " + error.getMessage();
            }
            long pause = asked + ThreadLocalRandom.current().nextLong(wait / 2, wait + 1);
            if (System.nanoTime() + pause * 1_000_000 > until) {
                throw new IOException(sent.uri() + ": " + failure + "; waited " + patience.toSeconds() + " s");
            }
            Thread.sleep(pause);
        }
    }

    /** A chunk and how far the job is, in one transaction: a reader sees both or none. */
    private void write(Connection database, List<Outcome> outcomes, long after) throws SQLException {
        String insert = "INSERT INTO " + quoted(target) + " (id, prediction, model_version) VALUES (?, ?, ?)"
                + " ON DUPLICATE KEY UPDATE prediction = VALUES(prediction), model_version = VALUES(model_version)";
        String skip = "INSERT INTO " + quoted(target + "_skipped") + " (id, reason) VALUES (?, ?)"
                + " ON DUPLICATE KEY UPDATE reason = VALUES(reason)";
        String go = "INSERT INTO " + quoted(target + "_progress") + " (job, after_id) VALUES (?, ?)"
                + " ON DUPLICATE KEY UPDATE after_id = VALUES(after_id)";
        try (PreparedStatement predictions = database.prepareStatement(insert);
                PreparedStatement skips = database.prepareStatement(skip);
                PreparedStatement progress = database.prepareStatement(go)) {
            for (Outcome each : outcomes) {
                PreparedStatement into = each.refusal() == null ? predictions : skips;
                into.setLong(1, each.row().id());
                if (each.refusal() == null) {
                    into.setDouble(2, each.prediction());
                    into.setInt(3, Integer.parseInt(each.version()));
                } else {
                    into.setString(2, each.refusal().substring(0, Math.min(500, each.refusal().length())));
                }
                into.addBatch();
            }
            predictions.executeBatch();
            skips.executeBatch();
            progress.setString(1, source);
            progress.setLong(2, after);
            progress.executeUpdate();
            database.commit();
        } catch (SQLException error) {
            database.rollback();
            throw error;
        }
    }

    private void makeTables(Connection database) throws SQLException {
        try (Statement statement = database.createStatement()) {
            statement.execute("CREATE TABLE IF NOT EXISTS " + quoted(target)
                    + " (id BIGINT PRIMARY KEY, prediction DOUBLE NOT NULL, model_version INT NOT NULL)");
            statement.execute("CREATE TABLE IF NOT EXISTS " + quoted(target + "_skipped")
                    + " (id BIGINT PRIMARY KEY, reason VARCHAR(500) NOT NULL)");
            statement.execute("CREATE TABLE IF NOT EXISTS " + quoted(target + "_progress")
                    + " (job VARCHAR(64) PRIMARY KEY, after_id BIGINT NOT NULL)");
        }
    }

    private long progress(Connection database) throws SQLException {
        String query = "SELECT after_id FROM " + quoted(target + "_progress") + " WHERE job = ?";
        try (PreparedStatement statement = database.prepareStatement(query)) {
            statement.setString(1, source);
            try (ResultSet found = statement.executeQuery()) {
                return found.next() ? found.getLong(1) : Long.MIN_VALUE;
            }
        }
    }

    private static long count(Connection database, String table) throws SQLException {
        try (Statement statement = database.createStatement();
                ResultSet found = statement.executeQuery("SELECT count(*) FROM " + quoted(table))) {
            found.next();
            return found.getLong(1);
        }
    }

    private String body(List<Input> inputs, List<Row> rows) {
        List<String> tensors = new ArrayList<>(inputs.size());
        for (int i = 0; i < inputs.size(); i++) {
            int column = i;
            String data = rows.stream().map(row -> json(row.values().get(column))).collect(Collectors.joining(","));
            String kind = inputs.get(i).isNumber() ? "FP64" : "BYTES";
            tensors.add("{\"name\":" + json(inputs.get(i).name()) + ",\"shape\":[" + rows.size()
                    + "],\"datatype\":\"" + kind + "\",\"data\":[" + data + "]}");
        }
        return "{\"inputs\":[" + String.join(",", tensors) + "],\"outputs\":[{\"name\":" + json(output) + "}]}";
    }

    private static String json(Object value) {
        if (value == null || value instanceof Double number && !Double.isFinite(number)) {
            return "null";
        }
        if (value instanceof Double) {
            return value.toString();
        }
        StringBuilder text = new StringBuilder("\"");
        for (char each : value.toString().toCharArray()) {
            if (each == '"' || each == '\\') {
                text.append('\\').append(each);
            } else if (each < ' ') {
                text.append(String.format("\\u%04x", (int) each));
            } else {
                text.append(each);
            }
        }
        return text.append('"').toString();
    }

    private static String detail(String body) {
        Matcher found = DETAIL.matcher(body);
        String text = found.find() ? found.group(1) : body;
        return text.substring(0, Math.min(300, text.length())).replace("\\\"", "\"").replaceAll("\\s+", " ");
    }

    private static String quoted(String name) {
        return "`" + name.replace("`", "``") + "`";
    }

    private static String named(String variable) {
        String name = need(variable);
        if (name.length() > 50) {
            throw new IllegalArgumentException(variable + " is longer than 50 letters");
        }
        return name;
    }

    private static String need(String variable) {
        String value = System.getenv(variable);
        if (value == null || value.isEmpty()) {
            System.err.println("error: set " + variable + "; " + Map.of(
                    "MODEL_URL", "http://host:8080/v2/models/<use case>",
                    "JDBC_URL", "jdbc:mariadb://host:3306/<database>?rewriteBatchedStatements=true",
                    "DB_USER", "who writes the predictions",
                    "SOURCE_TABLE", "rows to predict: `id` and the model's columns",
                    "TARGET_TABLE", "where predictions are written").get(variable));
            System.exit(2);
        }
        return value;
    }

    private static String or(String variable, String otherwise) {
        String value = System.getenv(variable);
        return value == null || value.isEmpty() ? otherwise : value;
    }
}

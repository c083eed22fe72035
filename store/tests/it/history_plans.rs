//! How PostgreSQL reads pages of a long history, when it plans a statement once for all its values.

use hanshu_store::{Dialect, SqlDatabase, statements};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::databases::postgres_url;

/// Events of 40 functions, all but one in a thousand of one state.
const FILL: &str = "
INSERT INTO history (request_id, namespace, function, trigger, origin, version, state, accepted_at,
  ended_at, attempts)
SELECT 'event-' || n, 'default', 'function-' || n % 40, '', '{}', '$LATEST',
  CASE WHEN n % 1000 = 0 THEN 'failed' ELSE 'succeeded' END, n, n, ''
FROM generate_series(1, 40000) AS n";

#[tokio::test]
async fn a_page_is_read_by_the_index_of_its_filter() {
    let Some(url) = postgres_url().await else { return };
    drop(SqlDatabase::open(&url).await.unwrap());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for statement in [FILL, "ANALYZE history", "SET plan_cache_mode = force_generic_plan"] {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
    let pages: Vec<_> = statements(Dialect::Postgres)
        .into_iter()
        .filter(|text| text.contains("FROM history") && text.contains("ended_at DESC, request_id"))
        .collect();
    let indexes = [
        ("trigger =", "history_by_trigger", 8),
        ("function =", "history_by_function", 7),
        ("namespace =", "history_by_namespace", 6),
    ];
    assert_eq!(pages.len(), indexes.len(), "{pages:?}");
    for (number, page) in pages.into_iter().enumerate() {
        let (_, index, values) = *indexes.iter().find(|(part, ..)| page.contains(part)).unwrap();
        let values = ["'default'", "'failed'", "9999999", "''", "0", "100", "'function-7'", "'a'"]
            [..values]
            .join(", ");
        let prepare = AssertSqlSafe(format!("PREPARE page{number} AS {page}"));
        sqlx::raw_sql(prepare).execute(&mut connection).await.unwrap();
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE page{number}({values})"));
        let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(&format!("using {index} ")), "{page}\n{plan}");
        assert!(!plan.contains("Sort"), "{page}\n{plan}");
    }
    connection.close().await.unwrap();
}

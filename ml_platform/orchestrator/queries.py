"""The GraphQL of Dagster 1.13 that the client speaks."""

FAILURE = "__typename ... on Error { message }"

RUN = "runId jobName status tags { key value } assetSelection { path } creationTime endTime"

RUNS = f"""
query Runs($filter: RunsFilter, $limit: Int) {{
  runsOrError(filter: $filter, limit: $limit) {{
    {FAILURE}
    ... on Runs {{ results {{ {RUN} }} }}
  }}
}}
"""

PLANNED = f"""
query Planned($filter: RunsFilter) {{
  runsOrError(filter: $filter) {{
    {FAILURE}
    ... on Runs {{ results {{ runId assets {{ key {{ path }} }} }} }}
  }}
}}
"""

RUN_BY_ID = f"""
query RunById($id: ID!) {{
  runOrError(runId: $id) {{
    {FAILURE}
    ... on Run {{
      {RUN}
      stats {{ ... on RunStatsSnapshot {{ materializations }} }}
      stepStats {{ stepKey status }}
    }}
  }}
}}
"""

EVENTS = f"""
query Events($id: ID!, $cursor: String) {{
  logsForRun(runId: $id, afterCursor: $cursor, limit: 1000) {{
    {FAILURE}
    ... on EventConnection {{
      cursor hasMore
      events {{
        __typename
        ... on ExecutionStepFailureEvent {{
          stepKey error {{ message causes {{ message }} }}
        }}
        ... on RunFailureEvent {{ message error {{ message causes {{ message }} }} }}
      }}
    }}
  }}
}}
"""

ASSETS = """
query Assets($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    jobNames
    tags { key value }
    repository { name location { name } }
  }
}
"""

REPOSITORIES = f"""
query Repositories {{
  repositoriesOrError {{
    {FAILURE}
    ... on RepositoryConnection {{ nodes {{ name location {{ name }} }} }}
  }}
}}
"""

GROUP = """
query Group($group: AssetGroupSelector!) {
  assetNodes(group: $group) {
    assetKey { path }
    tags { key value }
    metadataEntries { label ... on TextMetadataEntry { text } }
  }
}
"""

PARTITIONS = """
query Partitions($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    assetPartitionStatuses {
      __typename
      ... on TimePartitionStatuses { ranges { startKey endKey status } }
    }
  }
}
"""

LAUNCH = f"""
mutation Launch($params: ExecutionParams!) {{
  launchRun(executionParams: $params) {{
    {FAILURE}
    ... on LaunchRunSuccess {{ run {{ {RUN} }} }}
    ... on RunConfigValidationInvalid {{ errors {{ message }} }}
  }}
}}
"""

LAUNCH_BACKFILL = f"""
mutation LaunchBackfill($params: LaunchBackfillParams!) {{
  launchPartitionBackfill(backfillParams: $params) {{
    {FAILURE}
    ... on LaunchBackfillSuccess {{ backfillId }}
  }}
}}
"""

BACKFILL_OUTCOME = """
id status
tags { key value }
assetSelection { path }
timestamp endTimestamp
error { message }
"""

BACKFILL_FIELDS = f"""
{BACKFILL_OUTCOME}
runs {{ runId }}
assetBackfillData {{
  assetBackfillStatuses {{
    ... on AssetPartitionsStatusCounts {{
      numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
    }}
  }}
}}
"""

BACKFILL = f"""
query BackfillById($id: String!) {{
  partitionBackfillOrError(backfillId: $id) {{
    {FAILURE}
    ... on PartitionBackfill {{ {BACKFILL_FIELDS} }}
  }}
}}
"""

BACKFILLS = f"""
query Backfills($filters: BulkActionsFilter) {{
  partitionBackfillsOrError(filters: $filters) {{
    {FAILURE}
    ... on PartitionBackfills {{ results {{ {BACKFILL_FIELDS} }} }}
  }}
}}
"""

BACKFILL_OUTCOMES = f"""
query BackfillOutcomes($filters: BulkActionsFilter, $limit: Int) {{
  partitionBackfillsOrError(filters: $filters, limit: $limit) {{
    {FAILURE}
    ... on PartitionBackfills {{ results {{ {BACKFILL_OUTCOME} }} }}
  }}
}}
"""

BACKFILL_TAGS = f"""
query BackfillTags($limit: Int) {{
  partitionBackfillsOrError(limit: $limit) {{
    {FAILURE}
    ... on PartitionBackfills {{ results {{ id tags {{ key value }} }} }}
  }}
}}
"""

TERMINATE = f"""
mutation Terminate($id: String!) {{
  terminateRun(runId: $id) {{
    {FAILURE}
    ... on TerminateRunSuccess {{ run {{ runId }} }}
    ... on TerminateRunFailure {{ message }}
  }}
}}
"""

CANCEL_BACKFILL = f"""
mutation CancelBackfill($id: String!) {{
  cancelPartitionBackfill(backfillId: $id) {{
    {FAILURE}
    ... on CancelBackfillSuccess {{ backfillId }}
  }}
}}
"""

LOCATIONS = f"""
query Locations {{
  workspaceOrError {{
    {FAILURE}
    ... on Workspace {{
      locationEntries {{
        name loadStatus locationOrLoadError {{ __typename ... on PythonError {{ message }} }}
      }}
    }}
  }}
}}
"""

RELOAD = f"""
mutation Reload($name: String!) {{
  reloadRepositoryLocation(repositoryLocationName: $name) {{ {FAILURE} }}
}}
"""

"""What models use: training and serving resolve the same list."""

from feature_assets.category_mix import CategoryMix
from feature_assets.promotions import Promotions
from feature_assets.recency import Recency
from feature_assets.shopping_hours import ShoppingHours
from feature_assets.spend_trend import SpendTrend
from feature_assets.txn_7d import Txn7d
from feature_assets.txn_30d import Txn30d
from feature_assets.txn_90d import Txn90d
from lockstep import FeatureSet

CHURN_V1 = FeatureSet(
    "churn_v1",
    [
        Txn7d.sum_amt_7d,
        Txn7d.count_7d,
        Txn30d.sum_amt_30d,
        Txn30d.discount_share_30d,
        Txn90d.sum_amt_90d,
        Recency.days_since_last_basket,
        CategoryMix.grocery_share_30d,
        Promotions.redemptions_90d,
        ShoppingHours.evening_share_30d,
        SpendTrend.pace_7d_over_30d,
    ],
    description="Whether a household stops buying within the next thirty days.",
    owner="team:growth",
)

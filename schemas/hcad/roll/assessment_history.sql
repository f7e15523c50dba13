-- The value after a hearing wins over the roll's, once the hearing's outcome is released; a final value of 0 before that is none. Of several
-- hearings of the tax year the one that was released last counts.
with hearing as (
    select h.*, row_number() over last_first as place, count(*) over (partition by h.acct)::integer as hearings
      from {arb_hearings_real} h
     where h.stated_tax_year is null or h.stated_tax_year = {tax_year}
    window last_first as (
        partition by h.acct
        order by h.release_date desc nulls last, h.actual_hearing_date desc nulls last, h.scheduled_for_date desc nulls last,
                 h.final_appraised_value, h.final_market_value, h.initial_appraised_value, h.initial_market_value
    )
), decided as (
    select h.acct, h.hearings, h.release_date, coalesce(h.actual_hearing_date, h.scheduled_for_date) as hearing_on,
           h.initial_appraised_value, h.initial_market_value,
           case when h.release_date is not null or h.final_appraised_value > 0 then h.final_appraised_value end as final_appraised_value,
           case when h.release_date is not null or h.final_market_value > 0 then h.final_market_value end as final_market_value
      from hearing h
     where h.place = 1
)
select r.acct,
       coalesce(h.final_appraised_value, r.tot_appr_val) as appraised_value,
       coalesce(h.final_market_value, r.tot_mkt_val) as market_value,
       r.assessed_val as assessed_value,
       r.tot_appr_val as roll_appraised_value,
       r.tot_mkt_val as roll_market_value,
       h.initial_appraised_value as noticed_appraised_value,
       h.initial_market_value as noticed_market_value,
       h.final_appraised_value,
       h.final_market_value,
       r.prior_tot_appr_val as prior_appraised_value,
       r.prior_tot_mkt_val as prior_market_value,
       r.prior_land_val as prior_land_value,
       r.prior_bld_val as prior_improvement_value,
       r.new_construction_val as new_construction_value,
       case upper(r.cap_acct) when 'Y' then true when 'N' then false end as is_capped,
       r.cap_acct as cap_status,
       r.value_status,
       r.notice_dt as noticed_on,
       r.protested as is_protested,
       r.certified_date as certified_on,
       h.hearing_on,
       h.release_date as hearing_released_on,
       coalesce(h.hearings, 0) as hearings
  from {real_acct} r left join decided h on h.acct = r.acct
